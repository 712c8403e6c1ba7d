"""What the surrogate is compared with, under one interface; the neural ones have their own file.

`fit(sample)` learns from blocks with complete curves, `predict(sample)` gives the mean and standard
deviation of curves, (m, epochs) each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor

from benchmarks.studies.neural_surrogates import GraphNetwork, Peephole
from blockqnn.space import Block
from blockqnn.surrogate import Surrogate
from blockqnn.surrogate.features import FEATURES


@dataclass(frozen=True)
class Sample:
    """Some blocks of a table, their features (n, d) and curves (n, epochs)."""

    blocks: list[Block]
    features: np.ndarray
    curves: np.ndarray

    def __getitem__(self, picks: np.ndarray) -> Sample:
        blocks = [self.blocks[pick] for pick in picks]
        return Sample(blocks, self.features[picks], self.curves[picks])


class Rival(Protocol):
    """One way to predict curves."""

    def fit(self, sample: Sample) -> object: ...

    def predict(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]: ...


class GaussianProcess:
    """The surrogate of this package."""

    def fit(self, sample: Sample) -> None:
        self.surrogate = Surrogate().fit(sample.features, sample.curves)

    def predict(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        epochs = range(1, self.surrogate.epochs + 1)
        pairs = [self.surrogate.predict(sample.features, epoch) for epoch in epochs]
        means, deviations = zip(*pairs, strict=True)
        return np.stack(means, axis=1), np.stack(deviations, axis=1)


class Parameters:
    """A straight line through one number, the logarithm of the parameters."""

    def fit(self, sample: Sample) -> None:
        x = self._design(sample)
        self.weights = np.linalg.lstsq(x, sample.curves, rcond=None)[0]
        self.deviation = (sample.curves - x @ self.weights).std(axis=0, ddof=2)

    def predict(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        means = self._design(sample) @ self.weights
        return means, np.broadcast_to(self.deviation, means.shape)

    @staticmethod
    def _design(sample: Sample) -> np.ndarray:
        logarithms = sample.features[:, FEATURES.index("log2 parameters")]
        return np.stack([np.ones_like(logarithms), logarithms], axis=1)


class BoostedTrees:
    """Gradient boosting of scikit-learn, the epoch as one more feature.

    The deviation is the mean error of five-fold cross-validation over blocks, an epoch's own.
    """

    FOLDS = 5

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def fit(self, sample: Sample) -> None:
        fold = np.random.default_rng(self.seed).permutation(len(sample.blocks)) % self.FOLDS
        errors = np.empty_like(sample.curves)
        for number in range(self.FOLDS):
            model = self._fitted(sample[np.flatnonzero(fold != number)])
            aside = np.flatnonzero(fold == number)
            found = self._curves(model, sample.features[aside], sample.curves.shape[1])
            errors[aside] = found - sample.curves[aside]
        self.deviation = np.sqrt((errors**2).mean(axis=0))
        self.model = self._fitted(sample)

    def predict(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        means = self._curves(self.model, sample.features, len(self.deviation))
        return means, np.broadcast_to(self.deviation, means.shape)

    def _fitted(self, sample: Sample) -> GradientBoostingRegressor:
        model = GradientBoostingRegressor(
            n_estimators=200,
            learning_rate=0.05,
            max_depth=3,
            subsample=0.7,
            max_features=0.5,
            random_state=self.seed,
        )
        rows = _with_epochs(sample.features, sample.curves.shape[1])
        return model.fit(rows, sample.curves.ravel())

    @staticmethod
    def _curves(model: GradientBoostingRegressor, features: np.ndarray, epochs: int) -> np.ndarray:
        return model.predict(_with_epochs(features, epochs)).reshape(-1, epochs)


def _with_epochs(features: np.ndarray, epochs: int) -> np.ndarray:
    """A row for each block and epoch."""
    column = np.tile(np.arange(1.0, epochs + 1), len(features))
    return np.column_stack([np.repeat(features, epochs, axis=0), column])


class _Neural:
    """A rival that reads the block's code alone."""

    network: type[Peephole] | type[GraphNetwork]

    def __init__(self, seed: int) -> None:
        self.ensemble = self.network(seed)

    def fit(self, sample: Sample) -> None:
        self.ensemble.fit(sample.blocks, sample.curves)

    def predict(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        return self.ensemble.predict(sample.blocks)


class PeepholeLSTM(_Neural):
    network = Peephole


class BlockGraphNetwork(_Neural):
    network = GraphNetwork


SURROGATE = "Gaussian process"
RIVALS: dict[str, Callable[[int], Rival]] = {
    SURROGATE: lambda seed: GaussianProcess(),
    "boosted trees": BoostedTrees,
    "parameters alone": lambda seed: Parameters(),
    "Peephole LSTM": PeepholeLSTM,
    "graph network": BlockGraphNetwork,
}
"""Makers of all rivals by name, each from a seed."""
