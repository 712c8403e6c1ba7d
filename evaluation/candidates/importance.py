"""What of a network goes with its accuracy: kinds of layers, depth, width, shape.

A forest of trees predicts the accuracy of candidates that it has not seen from properties of their
networks. A property matters as much as the predictions get worse when its values are shuffled
among the candidates (Breiman 2001, permutation importance). That is no proof of a cause: candidates
are what the agent chose, and properties that go together share what they are worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blockqnn.cost import Cost
from blockqnn.errors import SearchError
from blockqnn.search.history import History
from blockqnn.search.records import Candidate
from blockqnn.space import Op
from blockqnn.space.block import CONVOLUTIONS
from blockqnn.surrogate.features import named_features

FEWEST = 20
"""Trained candidates below which nothing can be said."""
FOLDS = 5
SHUFFLES = 5
TREES = 100

Numbers = npt.NDArray[np.float64]

KINDS = {
    Op.MAX_POOL: "maximum poolings",
    Op.AVG_POOL: "average poolings",
    Op.ADD: "adds",
    Op.CONCAT: "concats",
}
"""Names of the layers that are counted by kind; convolutions are by kernel too."""


@dataclass(frozen=True)
class Importance:
    """One property of networks, and how much of their accuracy goes with it."""

    name: str
    points: float
    """Percent of accuracy by which predictions are further off without it, on average."""
    spread: float
    """Standard deviation of that over shuffles and folds."""
    rises: bool
    """Whether more of it goes with a higher accuracy (Spearman's rank correlation)."""


@dataclass(frozen=True)
class Importances:
    """The properties of a search's networks, what matters most first."""

    of: Sequence[Importance]
    candidates: int
    explained: float
    """Share of the variance of accuracies that the predictions explain (R squared), of candidates
    that they were not made from; 0 or less says that nothing here goes with accuracy."""


def importances(history: History, seed: int = 0) -> Importances:
    """The importance of each property for the accuracy after the first training of a candidate.

    Raises `SearchError` for a search with fewer than `FEWEST` networks trained, and where all are
    equally accurate.
    """
    from scipy.stats import spearmanr
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.model_selection import KFold

    trained = [
        (result.candidate, result.cost, accuracy)
        for result in history.results
        if (accuracy := result.outcome.accuracy) is not None
        and result.same_as is None
        and not result.candidate.rung
    ]
    if len(trained) < FEWEST:
        raise SearchError(
            f"{len(trained)} networks of the search were trained: what goes with accuracy can be "
            f"said of {FEWEST} or more"
        )
    if len({accuracy for *_, accuracy in trained}) == 1:
        raise SearchError(f"all {len(trained)} networks of the search are equally accurate")
    rows = [_properties(candidate, cost) for candidate, cost, _ in trained]
    names = [name for name in rows[0] if len({row[name] for row in rows}) > 1]
    values = np.array([[row[name] for name in names] for row in rows], dtype=np.float64)
    accuracies = np.array([accuracy for *_, accuracy in trained], dtype=np.float64)
    rng = np.random.default_rng(seed)
    losses: list[list[float]] = [[] for _ in names]
    predicted = np.empty_like(accuracies)
    for learned, unseen in KFold(FOLDS, shuffle=True, random_state=seed).split(values):
        forest = ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=seed)
        forest.fit(values[learned], accuracies[learned])
        predicted[unseen] = forest.predict(values[unseen])
        off = _off(predicted[unseen], accuracies[unseen])
        for place in range(len(names)):
            for _ in range(SHUFFLES):
                shuffled = values[unseen].copy()
                shuffled[:, place] = rng.permutation(shuffled[:, place])
                losses[place].append(_off(forest.predict(shuffled), accuracies[unseen]) - off)
    found = [
        Importance(
            name,
            float(np.mean(losses[place])),
            float(np.std(losses[place])),
            bool(spearmanr(values[:, place], accuracies).statistic > 0),
        )
        for place, name in enumerate(names)
    ]
    unexplained = float(np.var(accuracies - predicted) / np.var(accuracies))
    ranked = sorted(found, key=lambda each: -each.points)
    return Importances(ranked, len(trained), 1 - unexplained)


def _off(predicted: Numbers, accuracies: Numbers) -> float:
    """The mean distance of predictions, in percent of accuracy."""
    return float(np.mean(np.abs(predicted - accuracies)))


def _properties(candidate: Candidate, cost: Cost) -> dict[str, float]:
    """What a person would say of a candidate's network, in numbers."""
    layers, leaves = candidate.block.computing_layers()
    graph = named_features(candidate.block, cost)
    found: dict[str, float] = {}
    for kernel in (1, 3, 5):
        convolutions = [each for each in layers if each.op in CONVOLUTIONS]
        count = sum(layer.kernel == kernel for layer in convolutions)
        found[f"{kernel}x{kernel} convolutions"] = count
    for op, name in KINDS.items():
        found[name] = sum(layer.op == op for layer in layers)
    found |= {
        "layers": len(layers),
        "depth": graph["most layers on a path"],
        "convolutions on the shortest path": graph["fewest convolutions on a path"],
        "width (leaves)": len(leaves),
        "multiply-accumulates": cost.macs,
        "parameters": cost.parameters,
    }
    shape = candidate.shape
    if shape.repeats is not None:
        found |= {"stages": len(shape.repeats), "blocks": sum(shape.repeats)}
    if shape.skeleton is not None:
        found["skeleton half"] = float(shape.skeleton == "half")
    if shape.connections is not None:
        found["shortcuts"] = float(shape.connections == "shortcut")
    return found
