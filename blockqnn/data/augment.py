"""Random crops, mirrored images and cutout, for a whole batch on its device."""

import torch
from torch import Tensor

from blockqnn.settings import Recipe


def augment(
    images: Tensor,
    recipe: Recipe,
    generator: torch.Generator,
    of: int | None = None,
    part: slice = slice(None),
) -> Tensor:
    """Random crop, mirror and cutout of a normalised batch `(N, C, H, W)`, on its own device.

    If the images are only the `part` of a batch of `of` images, they are changed as they would be
    in the whole batch.
    """
    count, _, height, width = images.shape
    device = images.device

    def draw(high: int) -> Tensor:
        drawn = torch.randint(high, (of or count,), generator=generator, device=device)
        return drawn[part]

    if recipe.crop:
        padded = torch.nn.functional.pad(images, (recipe.crop,) * 4)
        rows = draw(2 * recipe.crop + 1)[:, None] + torch.arange(height, device=device)
        columns = draw(2 * recipe.crop + 1)[:, None] + torch.arange(width, device=device)
        each = torch.arange(count, device=device)[:, None, None]
        images = padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]]
        images = images.permute(0, 3, 1, 2)
    if recipe.flip:
        images = torch.where(draw(2).bool()[:, None, None, None], images.flip(3), images)
    if recipe.cutout:
        half = recipe.cutout // 2
        rows = torch.arange(height, device=device) - draw(height)[:, None] + half
        columns = torch.arange(width, device=device) - draw(width)[:, None] + half
        inside_rows = (rows >= 0) & (rows < recipe.cutout)
        inside_columns = (columns >= 0) & (columns < recipe.cutout)
        hole = inside_rows[:, None, :, None] & inside_columns[:, None, None, :]
        images = images.masked_fill(hole, 0.0)
    return images.contiguous(memory_format=torch.channels_last)
