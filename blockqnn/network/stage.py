"""The blocks of a stage, connected as `blockqnn.space.skeleton` describes."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from blockqnn.network.block_module import BlockModule
from blockqnn.network.cells import Add, Concat

_join = Concat()


class Shortcut(nn.Module):
    """A block's output plus its input: (N, `in_channels`, H, W) -> (N, `out_channels`, H, W).

    An input that is not as wide as the output goes through a 1x1 PCC first.
    """

    def __init__(self, block: BlockModule, in_channels: int) -> None:
        super().__init__()
        self.out_channels = block.out_channels
        self.block = block
        self.add = Add((self.out_channels, in_channels), self.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.add(self.block(x), x)
        return total


class Stage(nn.Sequential):
    """Blocks one after the other: (N, C, H, W) -> (N, width of the last block, H, W).

    With `concat` each but the first reads the outputs of the two before it, and the input of the
    stage stands for the output before the first.
    """

    def __init__(self, blocks: Iterable[nn.Module], *, concat: bool) -> None:
        super().__init__(*blocks)
        self.concat = concat

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, lambda block, maps: block(maps))

    def run(self, x: Tensor, call: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        """The output of the last block, where `call(block, maps)` is the output of each."""
        before: Tensor | None = None
        for block in self:
            entering = _join(before, x) if self.concat and before is not None else x
            before, x = x, call(block, entering)
        return x
