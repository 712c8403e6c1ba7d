"""Predicts the accuracy of a network at an epoch before it is trained, and how sure that is.

The journal version of the paper has a surrogate of this interface that we could not read; ours is
a Gaussian process on feature vectors, the winner of the comparison in docs/results/surrogate.md.
An epoch is an output of its own. All outputs share the kernel between networks and are tied by one
covariance S between epochs, so that for networks x and x' and epochs e and e'

    cov(accuracy(x, e), accuracy(x', e')) = S[e, e'] (k(x, x') + noise [x = x'])
    k(x, x') = exp(-|x - x'|^2 / 2 length^2) + linear x.x' / d      (features standardised)

Given complete curves, S drops out of the mean, and a network's first epochs say by S how its later
ones will be (Bonilla et al., NIPS 2007). Length, linear share and noise are the most probable ones.
Nothing is drawn at random: equal data give equal predictions.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

Array = NDArray[np.float64]

LARGEST = 1500
"""Curves that are learned from, the latest ones: time grows with their cube, to about a second."""
_CHOOSING = 256
"""Curves that the kernel is chosen by."""
_EVALUATIONS = 60
"""Of the likelihood, for each choice."""
_FARTHEST = np.array([3.0, 5.0, 9.0])
"""The logarithms of length, linear share and noise stay so close to what is expected of them."""
_JITTER = 1e-6
"""Noise at least, without which rounding can make a covariance indefinite."""
_ROUNDS = 3
"""Times that unfinished curves are completed anew."""


class Surrogate:
    """Starts from nothing and is fitted anew whenever there are results.

    `mean` and `deviation` are what it says of everything before any; they then count as one
    network's result among the others. Accuracies are in percent, but any number can be predicted.
    """

    def __init__(self, *, mean: float = 50.0, deviation: float = 25.0) -> None:
        if not deviation > 0:
            raise ValueError(f"deviation is {deviation!r}: give a number above 0")
        self.mean = mean
        self.deviation = deviation
        self.epochs = 0
        """Epochs of the longest curve learned from; 0 while it knows nothing."""

    def fit(self, features: ArrayLike, curves: ArrayLike) -> Self:
        """Learn from scratch what networks came to.

        `features` is (n, d); `curves` (n, epochs), with NaN for epochs that a network was not
        trained for, which come last, or (n,) for one number each. Raises ValueError for other
        shapes, and for a first epoch or a feature that is not finite.
        """
        x, y = np.asarray(features, float), np.asarray(curves, float)
        y = y[:, None] if y.ndim == 1 else y
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
            raise ValueError(
                f"features {x.shape} and curves {y.shape} do not fit: give (n, d) and (n, epochs)"
            )
        known = np.isfinite(y)
        if not np.isfinite(x).all() or (len(y) and not known[:, :1].all()):
            raise ValueError("a feature or a first epoch is not a finite number")
        if (known[:, 1:] > known[:, :-1]).any():
            raise ValueError("a curve has a gap: what is not known must come last")
        self.epochs = 0
        if len(y):
            with threadpool_limits(
                1, "blas"
            ):  # others train meanwhile: threads would wait for them
                self._fit(x[-LARGEST:], y[-LARGEST:])
        return self

    def predict(
        self, features: ArrayLike, epoch: int | None = None, *, noise: bool = True
    ) -> tuple[Array, Array]:
        """Mean and standard deviation of the accuracies of untrained networks, (m,) each.

        `features` is (m, d), `epoch` counts from 1 and is the last one unless given. The deviation
        is that of a training's result; without `noise` that of the mean over many trainings.
        """
        x = np.asarray(features, float)
        if not self.epochs:
            return np.full(len(x), self.mean), np.full(len(x), self.deviation)
        column = self._column(epoch)
        means, scale = self._posterior(x, noise)
        return means[:, column], scale * np.sqrt(self._between[column, column])

    def extrapolate(
        self, features: ArrayLike, seen: ArrayLike, epoch: int | None = None
    ) -> tuple[Array, Array]:
        """Mean and standard deviation of later accuracies of networks in training, (m,) each.

        `features` is (m, d), `seen` (m, k): the accuracies after the first k epochs. `epoch` is the
        one asked for, the last one unless given; an epoch already seen is known, with deviation 0.
        """
        x, y = np.asarray(features, float), np.asarray(seen, float)
        if y.ndim != 2 or len(x) != len(y):
            raise ValueError(f"seen has shape {y.shape}: give ({len(x)}, epochs)")
        if not self.epochs:
            return np.full(len(x), self.mean), np.full(len(x), self.deviation)
        column = self._column(epoch)
        if column < y.shape[1]:
            return y[:, column], np.zeros(len(y))
        means, scale = self._posterior(x, noise=True)
        weights, variance = _conditional(self._between, y.shape[1], column)
        shift = (y - means[:, : y.shape[1]]) @ weights
        # of a regression on so many epochs that as many curves told
        variance *= (self._whole + y.shape[1]) / max(self._whole - y.shape[1], 1)
        return means[:, column] + shift, scale * np.sqrt(variance)

    def _column(self, epoch: int | None) -> int:
        if epoch is not None and not 1 <= epoch <= self.epochs:
            raise ValueError(f"epoch is {epoch}: the curves learned from have 1 to {self.epochs}")
        return (self.epochs if epoch is None else epoch) - 1

    def _fit(self, x: Array, y: Array) -> None:
        self.epochs = y.shape[1]
        self._centre = x.mean(axis=0)
        spread = x.std(axis=0)
        self._spread = np.where(spread > 1e-9, spread, 1.0)
        self._x = (x - self._centre) / self._spread
        whole = np.isfinite(y[:, -1])
        filled = _continued(y)
        self._solve(filled, whole)
        for _ in range(0 if whole.all() else _ROUNDS):
            filled = self._completed(y, filled)
            self._solve(filled, whole)

    def _solve(self, y: Array, whole: NDArray[np.bool_]) -> None:
        """Choose the kernel for complete curves and keep what predictions need."""
        count = len(y)
        self._level = (self.mean + y.sum(axis=0)) / (1 + count)
        deviations = y - self._level
        scales = np.sqrt((self.deviation**2 + (deviations**2).sum(axis=0)) / (1 + count))
        scaled = deviations / scales
        picks = np.unique(np.linspace(0, count - 1, min(count, _CHOOSING)).astype(int))
        self._kernel = _Kernel.chosen(self._x[picks], scaled[picks])
        covariance = self._kernel.between(self._x, self._x)
        covariance[np.diag_indices(count)] += self._kernel.noise
        factor = cholesky(covariance, lower=True)
        self._inverse = cho_solve((factor, True), np.eye(count))
        self._weights = self._inverse @ deviations
        # Each network predicted from all others: what these errors are is what errors will be.
        precision = np.diagonal(self._inverse)[:, None]
        errors = (self._weights / np.sqrt(precision))[whole] / scales
        prior = np.full((self.epochs, self.epochs), 0.5) + 0.5 * np.eye(self.epochs)
        between = (2 * prior + errors.T @ errors) / (2 + len(errors))
        self._whole = 2 + len(errors)
        self._between = between * np.outer(scales, scales)

    def _completed(self, y: Array, filled: Array) -> Array:
        """Curves with what is missing as the others and their own beginning say."""
        precision = np.diagonal(self._inverse)[:, None]
        means = filled - self._weights / precision
        result = y.copy()
        for seen in range(1, self.epochs):
            rows = np.isfinite(y).sum(axis=1) == seen
            for column in range(seen, self.epochs):
                weights, _ = _conditional(self._between, seen, column)
                shift = (y[rows, :seen] - means[rows, :seen]) @ weights
                result[rows, column] = means[rows, column] + shift
        return result

    def _posterior(self, features: Array, noise: bool) -> tuple[Array, Array]:
        """Means (m, epochs), and the deviations (m,) that an epoch's own is multiplied by."""
        x = (features - self._centre) / self._spread
        cross = self._kernel.between(x, self._x)
        explained = np.einsum("ij,ij->i", cross @ self._inverse, cross)
        variance = self._kernel.alone(x) - explained + noise * self._kernel.noise
        means = self._level + cross @ self._weights
        return means, np.sqrt(np.maximum(variance, 1e-12))


class _Kernel:
    """Similarity of standardised feature vectors."""

    def __init__(self, logarithms: Array) -> None:
        self.length, self.linear, self.noise = np.exp(logarithms) + np.array([0.0, 0.0, _JITTER])

    @classmethod
    def chosen(cls, x: Array, y: Array) -> Self:
        """The most probable one for targets `y`, (n, epochs), given weak priors.

        Nelder and Mead's method only compares likelihoods, so rounding of another machine or
        number of threads does not change its choice.
        """
        count, width = x.shape
        squares, products = cdist(x, x, "sqeuclidean"), x @ x.T / width
        middle = np.array([0.5 * np.log(width), 0.0, -2.0])
        spread = np.array([1.0, 2.0, 1.5])

        def surprise(logarithms: Array) -> float:
            logarithms = np.clip(logarithms, middle - _FARTHEST, middle + _FARTHEST)
            covariance = _covariance(squares, products, *np.exp(logarithms[:2]))
            covariance[np.diag_indices(count)] += np.exp(logarithms[2]) + _JITTER
            factor = cholesky(covariance, lower=True, check_finite=False)
            explained = (y * cho_solve((factor, True), y, check_finite=False)).sum(axis=0)
            prior = 0.5 * (((logarithms - middle) / spread) ** 2).sum()
            fit = 0.5 * count * np.log((1 + explained) / (1 + count)).mean()
            return float(np.log(np.diagonal(factor)).sum() + fit + prior)

        options = {"maxfev": _EVALUATIONS, "xatol": 0.05, "fatol": 0.05}
        start = middle + np.vstack([np.zeros(3), np.diag([-0.5, -0.7, -0.7])])
        found = minimize(
            surprise, middle, method="Nelder-Mead", options={**options, "initial_simplex": start}
        )
        return cls(np.clip(found.x, middle - _FARTHEST, middle + _FARTHEST))

    def between(self, first: Array, second: Array) -> Array:
        """Of all pairs, (n, m)."""
        squares = cdist(first, second, "sqeuclidean")
        products = first @ second.T / first.shape[1]
        return _covariance(squares, products, self.length, self.linear)

    def alone(self, x: Array) -> Array:
        """Of each vector with itself, (n,)."""
        alone: Array = 1.0 + self.linear * (x * x).mean(axis=1)
        return alone


def _covariance(squares: Array, products: Array, length: float, linear: float) -> Array:
    covariance: Array = np.exp(-0.5 * squares / length**2) + linear * products
    return covariance


def _conditional(between: Array, seen: int, column: int) -> tuple[Array, float]:
    """Weights of the seen epochs' errors for a later one's, and the variance that is left."""
    weights = np.asarray(np.linalg.solve(between[:seen, :seen], between[:seen, column]), float)
    left = between[column, column] - weights @ between[:seen, column]
    return weights, max(float(left), 0.0)


def _continued(y: Array) -> Array:
    """Curves in which what is missing rises as it does for those who have it."""
    filled = y.copy()
    for column in range(1, y.shape[1]):
        rises = y[:, column] - y[:, column - 1]
        has = np.isfinite(rises)
        rise = rises[has].mean() if has.any() else 0.0
        filled[:, column] = np.where(has, y[:, column], filled[:, column - 1] + rise)
    return filled
