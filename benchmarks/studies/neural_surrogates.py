"""Neural rivals of the surrogate: what the paper's own probably was, and a network on the graph.

`Peephole` follows Deng et al. (arXiv 1712.03351), whose first author is one of the journal paper's:
the numbers of each layer code are embedded and concatenated, a LSTM reads the layers, its last
state and an embedding of the epoch go through a multilayer perceptron. `GraphNetwork` passes
messages along and against the edges of the block's graph, identities folded away, before the same
perceptron. Sizes are ours: the paper's were not found. Both are ensembles whose members stop where
networks kept aside are predicted best; the errors there and the members' disagreement are the
uncertainty.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from blockqnn.space import KERNELS, Block, Op, predecessors

MEMBERS = 3
HIDDEN = 64
EMBEDDED = 16
ASIDE = 0.15
"""Share of the training blocks that are kept aside and tell when to stop."""
STEPS = 600
"""Most passes over the training blocks."""
PATIENCE = 40
"""Passes without a better prediction of the blocks kept aside, until a member stops."""
MINIBATCH = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-3

_LABELS = [(op, kernel) for op, kernels in KERNELS.items() for kernel in kernels]
_KERNEL_SIZES = sorted({kernel for _, kernel in _LABELS})
_LONGEST = 24


class _Head(nn.Module):
    """Layers from what is known of a block, (N, HIDDEN), to its whole curve, (N, epochs)."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epoch = nn.Embedding(epochs, EMBEDDED)
        self.perceptron = nn.Sequential(
            nn.Linear(HIDDEN + EMBEDDED, HIDDEN), nn.ReLU(), nn.Dropout(0.1), nn.Linear(HIDDEN, 1)
        )

    def forward(self, known: Tensor) -> Tensor:
        epochs = self.epoch.weight.expand(len(known), -1, -1)
        known = known[:, None].expand(-1, epochs.shape[1], -1)
        return self.perceptron(torch.cat([known, epochs], dim=2))[..., 0]


class _LayerReader(nn.Module):
    """Inputs (N, layers, 4) of kind, kernel and two predecessors; the rest is padding, kind 0."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        sizes = (1 + max(KERNELS), len(_KERNEL_SIZES), _LONGEST, _LONGEST)
        self.embeddings = nn.ModuleList(nn.Embedding(size, EMBEDDED) for size in sizes)
        self.lstm = nn.LSTM(len(sizes) * EMBEDDED, HIDDEN, batch_first=True)
        self.head = _Head(epochs)

    def forward(self, layers: Tensor) -> Tensor:
        parts = [embed(layers[..., field]) for field, embed in enumerate(self.embeddings)]
        states, _ = self.lstm(torch.cat(parts, dim=2))
        last = (layers[..., 0] > 0).sum(dim=1) - 1
        return self.head(states[torch.arange(len(layers)), last])

    @staticmethod
    def inputs(blocks: Sequence[Block]) -> tuple[Tensor, ...]:
        longest = max(len(block.layers) for block in blocks)
        codes = np.zeros((len(blocks), longest, 4), np.int64)
        for row, block in zip(codes, blocks, strict=True):
            for place, (_, op, kernel, *reads) in zip(row, block.layers, strict=False):
                place[:] = (op, _KERNEL_SIZES.index(kernel), *reads)
        return (torch.from_numpy(codes),)


class _MessagePasser(nn.Module):
    """Inputs: labels (N, nodes), 0 for padding, and edges (N, nodes, nodes) from row to column."""

    ROUNDS = 4

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2 + len(_LABELS), HIDDEN, padding_idx=0)
        self.rounds = nn.ModuleList(nn.Linear(3 * HIDDEN, HIDDEN) for _ in range(self.ROUNDS))
        self.norms = nn.ModuleList(nn.LayerNorm(HIDDEN) for _ in range(self.ROUNDS))
        self.head = _Head(epochs)

    def forward(self, labels: Tensor, edges: Tensor) -> Tensor:
        there = (labels > 0)[..., None].float()
        nodes = self.embedding(labels)
        for linear, norm in zip(self.rounds, self.norms, strict=True):
            received = [nodes, edges.transpose(1, 2) @ nodes, edges @ nodes]
            nodes = (nodes + torch.relu(norm(linear(torch.cat(received, dim=2))))) * there
        return self.head(nodes.sum(dim=1) / 4)  # a sum knows how many; about one in size

    @staticmethod
    def inputs(blocks: Sequence[Block]) -> tuple[Tensor, ...]:
        most = 1 + max(len(block.layers) for block in blocks)
        labels = np.zeros((len(blocks), most), np.int64)
        edges = np.zeros((len(blocks), most, most), np.float32)
        for label, edge, block in zip(labels, edges, blocks, strict=True):
            label[0] = 1  # the block input; the terminal is the output
            node_of, count = {0: 0}, 1
            for layer in block.layers:
                if layer.op == Op.IDENTITY:
                    node_of[layer.index] = node_of[layer.pred1]
                    continue
                node_of[layer.index] = count
                label[count] = 2 + _LABELS.index((layer.op, layer.kernel))
                ends = layer.op == Op.TERMINAL
                for source in (block.leaves or (0,)) if ends else predecessors(layer):
                    edge[node_of[source], count] += 1
                count += 1
        return torch.from_numpy(labels), torch.from_numpy(edges)


class _Ensemble:
    network: type[_LayerReader] | type[_MessagePasser]

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, blocks: Sequence[Block], curves: np.ndarray) -> None:
        """Learn from complete curves, (n, epochs)."""
        self.level, self.scale = curves.mean(), curves.std()
        targets = torch.from_numpy((curves - self.level) / self.scale).float()
        inputs = self.network.inputs(blocks)
        self.members = []
        errors = []
        with torch.random.fork_rng(devices=[]):
            for member in range(MEMBERS):
                torch.manual_seed(self.seed * MEMBERS + member)
                order = torch.randperm(len(blocks))
                aside = order[: max(1, round(ASIDE * len(blocks)))]
                network = self._member(inputs, targets, order[len(aside) :], aside)
                self.members.append(network)
                with torch.no_grad():
                    errors.append(network(*(part[aside] for part in inputs)) - targets[aside])
        self.error = (torch.cat(errors) ** 2).mean(dim=0).sqrt().numpy()

    def predict(self, blocks: Sequence[Block]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the curves, (m, epochs) each."""
        inputs = self.network.inputs(blocks)
        with torch.no_grad():
            curves = torch.stack([network(*inputs) for network in self.members]).numpy()
        spread = np.hypot(curves.std(axis=0), self.error)
        return self.level + self.scale * curves.mean(axis=0), self.scale * spread

    def _member(
        self, inputs: tuple[Tensor, ...], targets: Tensor, learned: Tensor, aside: Tensor
    ) -> nn.Module:
        network = self.network(targets.shape[1])
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        best, kept, waited = np.inf, copy.deepcopy(network), 0
        for _ in range(STEPS):
            network.train()
            for batch in learned[torch.randperm(len(learned))].split(MINIBATCH):
                found = network(*(part[batch] for part in inputs))
                loss = nn.functional.mse_loss(found, targets[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            network.eval()
            with torch.no_grad():
                found = network(*(part[aside] for part in inputs))
                error = nn.functional.mse_loss(found, targets[aside]).item()
            waited += 1
            if error < best:
                best, kept, waited = error, copy.deepcopy(network), 0
            if waited >= PATIENCE:
                break
        return kept


class Peephole(_Ensemble):
    """The rival that reads a block's code by an LSTM."""

    network = _LayerReader


class GraphNetwork(_Ensemble):
    """The rival that passes messages on the block's graph."""

    network = _MessagePasser
