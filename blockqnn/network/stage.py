"""The blocks of a stage, connected as `blockqnn.space.skeleton` describes."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from blockqnn.network.block_module import BlockModule
from blockqnn.network.cells import Add, Concat
from blockqnn.space import Block

_join = Concat()
"""The module, without weights, that joins the outputs of two blocks."""


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
    """The blocks of a stage in a row: (N, `in_channels`, H, W) -> (N, `out_channels`, H, W).

    There is one block for each of the `rates`, which is the block's `drop_path`.
    """

    def __init__(
        self, block: Block, in_channels: int, filters: int, rates: Iterable[float], connections: str
    ) -> None:
        modules: list[BlockModule | Shortcut] = []
        before, width = 0, in_channels
        for rate in rates:
            entering = width + before if connections == "concat" else width
            module = BlockModule(block, entering, filters, rate)
            modules.append(Shortcut(module, entering) if connections == "shortcut" else module)
            before, width = width, module.out_channels
        super().__init__(*modules)
        self.concat = connections == "concat"
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, lambda block, maps: block(maps))

    def run(self, x: Tensor, call: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        """The output of the last block, where `call(block, maps)` is the output of each."""
        before: Tensor | None = None
        for block in self:
            entering = _join(before, x) if self.concat and before is not None else x
            before, x = x, call(block, entering)
        return x
