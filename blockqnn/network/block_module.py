"""A block becomes a module (CVPR 2018, section 3.1).

Maps are (N, C, H, W). Everything inside a block keeps height and width.
"""

from collections import Counter
from collections.abc import Sequence

from torch import Tensor, nn

from blockqnn.network.cells import Add, AveragePool, Concat, Pcc, Separable
from blockqnn.space import Block, Layer, Op, predecessors
from blockqnn.space.block import CONVOLUTIONS

Plan = list[tuple[Layer, tuple[int, ...]]]
"""Layers, each with the indices of those that it reads."""


class BlockModule(nn.Module):
    """One block: (N, `in_channels`, H, W) -> (N, `out_channels`, H, W).

    `layers` holds modules under the indices of the block's layers. Layers that compute nothing have
    none; the terminal's concatenates several leaves. `drop_path` is the probability that
    `build_network` describes, for this block.
    """

    def __init__(
        self, block: Block, in_channels: int, filters: int, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        plan, self.result = _plan(block)
        readers = Counter(source for _, sources in plan for source in sources)
        last_reader = {source: layer.index for layer, sources in plan for source in sources}
        self.layers = nn.ModuleDict()
        self.steps: list[tuple[str, tuple[int, ...], list[int]]] = []
        self.droppable = _droppable(plan) if drop_path else {}
        if self.droppable:
            from timm.layers import DropPath  # takes a second to import, and most never drop

            self.drop_path = DropPath(drop_path)
        widths = {0: in_channels}
        for layer, sources in plan:
            # A ReLU may overwrite what nobody else reads, but not the block's input.
            overwrite = readers[sources[0]] == 1 and sources[0] != 0
            module, width = _module(layer, [widths[s] for s in sources], filters, overwrite)
            self.layers[str(layer.index)] = module
            widths[layer.index] = width
            spent = [source for source in set(sources) if last_reader[source] == layer.index]
            self.steps.append((str(layer.index), sources, spent))
        self.out_channels = widths[self.result]

    def forward(self, x: Tensor) -> Tensor:
        tensors = {0: x}
        del x
        for name, sources, spent in self.steps:
            read = [tensors[source] for source in sources]
            for position in self.droppable.get(name, ()):
                read[position] = self.drop_path(read[position])
            for source in spent:  # freed at its last use, not at the end of the block
                del tensors[source]
            tensors[int(name)] = self.layers[name](*read)
        return tensors[self.result]


def _plan(block: Block) -> tuple[Plan, int]:
    """The layers to build, the terminal among them if it concatenates, and the result's index."""
    layers, leaves = block.computing_layers()
    plan = [(layer, predecessors(layer)) for layer in layers]
    if len(leaves) == 1:
        return plan, leaves[0]
    end = block.layers[-1]
    return [*plan, (end, leaves)], end.index


def _droppable(plan: Plan) -> dict[str, list[int]]:
    """Positions of the inputs that may be dropped, by the name of the layer that joins them."""
    made_by = {layer.index: layer.op for layer, _ in plan}
    paths = (*CONVOLUTIONS, Op.MAX_POOL, Op.AVG_POOL)
    positions = {
        str(layer.index): [i for i, source in enumerate(sources) if made_by.get(source) in paths]
        for layer, sources in plan
        if len(sources) > 1
    }
    return {name: found for name, found in positions.items() if found}


def _module(
    layer: Layer, widths: Sequence[int], filters: int, overwrite: bool
) -> tuple[nn.Module, int]:
    """The module of one layer that reads maps so wide, and the width of its output."""
    if layer.op in CONVOLUTIONS:
        cell = Pcc if layer.op == Op.CONV else Separable
        return cell(widths[0], filters, layer.kernel, inplace=overwrite), filters
    if layer.op == Op.MAX_POOL:
        return nn.MaxPool2d(3, stride=1, padding=1), widths[0]
    if layer.op == Op.AVG_POOL:
        return AveragePool(3), widths[0]
    if layer.op == Op.ADD:
        add = Add(widths, filters)
        return add, add.out_channels
    return Concat(), sum(widths)
