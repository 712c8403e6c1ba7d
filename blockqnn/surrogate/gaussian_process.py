"""A prediction of a network's accuracy at an epoch before it is trained, and how sure it is.

The journal version of the paper has a surrogate of this interface that we could not read; ours is
a Gaussian process on feature vectors, chosen by the comparison in docs/results/surrogate.md.
An epoch is an output of its own. All outputs share the kernel k between networks and are tied by
one covariance S between epochs, so that for networks x and x' and epochs e and e'

    cov(accuracy(x, e), accuracy(x', e')) = S[e, e'] (k(x, x') + noise [x = x'])

with features standardised, and weighted by how much each tells of the results.

Given complete curves, S drops out of the mean, and a network's first epochs tell by S how its later
ones will be (Bonilla et al., NIPS 2007). Nothing is drawn at random: equal data give equal
predictions.
"""

from functools import partial
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_solve, cholesky
from threadpoolctl import threadpool_limits

from blockqnn.surrogate.kernel import Array, Kernel

LARGEST = 1500
"""Most curves that are learned from, the latest ones. A fit to so many takes about a second."""
_CHOOSING = 256
"""Most curves that the kernel is chosen by."""
_LEAST = 0.2
"""Least correlation that a feature is taken to have with the results."""
_EXPECTED = 2
"""Number of curves that the expected covariance between epochs weighs as much as."""
_RIDGE = 0.003
"""Ridge of the regression that continues a stopped curve, as a share of the mean variance."""
_one_thread = partial(threadpool_limits, 1, "blas")
"""Compute with one thread: the last digits depend on how many there are, and with them what a
resumed search proposes. More would also wait for the trainings on the same cores."""


class Surrogate:
    """A Gaussian process of learning curves, fitted anew whenever there are results.

    Before any, it predicts `mean` and `deviation` for everything; then they count as one network's
    result among the others. Accuracies are in percent, but any number can be predicted.
    """

    def __init__(self, *, mean: float = 50.0, deviation: float = 25.0) -> None:
        if not deviation > 0:
            raise ValueError(f"deviation is {deviation!r}: give a number above 0")
        self.mean = mean
        self.deviation = deviation
        self.epochs = 0
        """Number of epochs of the longest curve learned from, or 0 before any."""

    def fit(self, features: ArrayLike, curves: ArrayLike) -> Self:
        """Learn from the results of networks, and forget what was learned before.

        `features` is (n, d). `curves` is (n, epochs), with NaN for the epochs after a training was
        stopped, or (n,) for one number each. How stopped curves would have gone on is guessed from
        their beginning and from those that went on; where all bad ones were stopped, the guess is
        too good. Raises ValueError for other shapes, for a first epoch or a feature that is not
        finite, and for a curve with a gap.
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
            with _one_thread():
                self._fit(x[-LARGEST:], y[-LARGEST:])
        return self

    def predict(
        self, features: ArrayLike, epoch: int | None = None, *, noise: bool = True
    ) -> tuple[Array, Array]:
        """Mean and standard deviation of the accuracies of untrained networks, (m,) each.

        `features` is (m, d). `epoch` counts from 1 and is the last one unless given. The deviation
        is that of one training's result; without `noise`, that of the mean over many trainings.
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
        seen_epochs = y.shape[1]
        weights, variance = self._told(seen_epochs, column)
        shift = (y - means[:, :seen_epochs]) @ weights
        return means[:, column] + shift, scale * np.sqrt(variance)

    def forecasts(self, features: ArrayLike) -> list[tuple[Array, float, float]]:
        """How `extrapolate` will predict the last epoch of one network with these features, (d,).

        There is an entry for one epoch seen, for two, up to the last but one: weights of the
        accuracies seen, a constant to add, and the standard deviation. No entries before a fit.
        """
        if self.epochs < 2:
            return []
        means, scale = self._posterior(np.asarray(features, float)[None], noise=True)
        found = []
        for seen in range(1, self.epochs):
            weights, variance = self._told(seen, self.epochs - 1)
            constant = means[0, -1] - means[0, :seen] @ weights
            found.append((weights, float(constant), float(scale[0] * np.sqrt(variance))))
        return found

    def _told(self, seen: int, column: int) -> tuple[Array, float]:
        """Weights of the errors at the first epochs, whose sum predicts the error at a later one,
        and the variance of what is left of that error.
        """
        weights, covariance = _conditional(self._between, seen)
        place = column - seen
        # The weights are estimates, too, from so many complete curves.
        told = _EXPECTED + self._whole
        unsure = (told + seen) / max(told - seen, 1)
        return weights[:, place], float(covariance[place, place]) * unsure

    def _column(self, epoch: int | None) -> int:
        if epoch is not None and not 1 <= epoch <= self.epochs:
            raise ValueError(f"epoch is {epoch}: the curves learned from have 1 to {self.epochs}")
        return (self.epochs if epoch is None else epoch) - 1

    def _fit(self, x: Array, y: Array) -> None:
        self.epochs = y.shape[1]
        self._centre = x.mean(axis=0)
        filled = _continued(y)
        self._spread = _spread(x, filled)
        self._x = (x - self._centre) / self._spread
        lengths = np.isfinite(y).sum(axis=1)
        whole = lengths == self.epochs
        self._whole = int(whole.sum())
        self._solve(filled, whole, np.zeros((self.epochs, self.epochs)))
        if not whole.all():
            filled, unsure = self._completed(y, filled, lengths)
            self._solve(filled, np.full(len(y), True), unsure)

    def _solve(self, y: Array, counted: NDArray[np.bool_], unsure: Array) -> None:
        """Choose the kernel for complete curves and keep what predictions need.

        The covariance between epochs is estimated from the `counted` curves. `unsure` is added to
        the sum of their squared errors, because part of these was guessed.
        """
        count = len(y)
        self._level = (self.mean + y.sum(axis=0)) / (1 + count)
        deviations = y - self._level
        scales = np.sqrt((self.deviation**2 + (deviations**2).sum(axis=0)) / (1 + count))
        picks = np.unique(np.linspace(0, count - 1, min(count, _CHOOSING)).astype(int))
        self._kernel = Kernel.chosen(self._x[picks], (deviations / scales)[picks])
        covariance = self._kernel.between(self._x, self._x)
        covariance[np.diag_indices(count)] += self._kernel.noise
        factor = cholesky(covariance, lower=True)
        self._inverse = cho_solve((factor, True), np.eye(count))
        self._weights = self._inverse @ deviations
        # Errors of predicting each network from all others: later errors will be like these.
        precision = np.diagonal(self._inverse)[:, None]
        errors = (self._weights / np.sqrt(precision))[counted]
        expected = (0.5 + 0.5 * np.eye(self.epochs)) * np.outer(scales, scales)
        total = _EXPECTED * expected + errors.T @ errors + unsure
        self._between = total / (_EXPECTED + len(errors))

    def _completed(
        self, y: Array, filled: Array, lengths: NDArray[np.int64]
    ) -> tuple[Array, Array]:
        """Curves in which what is missing is predicted from the others and their own beginning, and
        the sum of the covariances of these predictions.
        """
        precision = np.diagonal(self._inverse)[:, None]
        means = filled - self._weights / precision
        result = y.copy()
        unsure = np.zeros((self.epochs, self.epochs))
        for seen in range(1, self.epochs):
            rows = lengths == seen
            weights, covariance = _conditional(self._between, seen)
            errors = y[rows, :seen] - means[rows, :seen]
            result[rows, seen:] = means[rows, seen:] + errors @ weights
            unsure[seen:, seen:] += rows.sum() * covariance
        return result, unsure

    def _posterior(self, features: Array, noise: bool) -> tuple[Array, Array]:
        """Means (m, epochs), and factors (m,) of each epoch's own standard deviation."""
        x = (features - self._centre) / self._spread
        with _one_thread():
            cross = self._kernel.between(x, self._x)
            explained = np.einsum("ij,ij->i", cross @ self._inverse, cross)
            means = self._level + cross @ self._weights
        variance = self._kernel.alone(x) - explained + noise * self._kernel.noise
        return means, np.sqrt(np.maximum(variance, 1e-12))


def _spread(x: Array, y: Array) -> Array:
    """What to divide features by, (d,): their deviation, and more where they tell less of `y`.

    A feature counts by its correlation with the results `y`, less what chance gives, and by
    `_LEAST` at least. Few results cannot tell thirty lengths, one for each feature, but this much.
    """
    deviations = x.std(axis=0)
    deviations = np.where(deviations > 1e-9, deviations, 1.0)
    scaled = (x - x.mean(axis=0)) / deviations
    results = (y - y.mean(axis=0)) / np.maximum(y.std(axis=0), 1e-9)
    explained = ((scaled.T @ results / len(x)) ** 2).mean(axis=1) - 1 / len(x)
    weights = np.sqrt(np.maximum(explained, _LEAST**2))
    spread: Array = deviations * np.sqrt((weights**2).mean()) / weights
    return spread


def _conditional(between: Array, seen: int) -> tuple[Array, Array]:
    """Weights (seen, others) that predict later epochs' errors from the first ones', and the
    covariance that is left of them, both for the covariance `between` epochs.
    """
    weights = np.asarray(np.linalg.solve(between[:seen, :seen], between[:seen, seen:]), float)
    left = between[seen:, seen:] - between[seen:, :seen] @ weights
    return weights, left


def _continued(y: Array) -> Array:
    """Curves in which missing epochs are predicted from those before, by the curves that have both.

    It is a ridge regression towards the average rise.
    """
    filled = y.copy()
    for column in range(1, y.shape[1]):
        has = np.isfinite(y[:, column])
        before = filled[:, :column]
        guess = before[:, -1]
        if has.any():
            before = before - before[has].mean(axis=0)
            rises = y[has, column] - y[has, column - 1]
            gram = before[has].T @ before[has]
            gram += (_RIDGE * np.trace(gram) / column + 1e-9) * np.eye(column)
            weights = np.linalg.solve(gram, before[has].T @ (rises - rises.mean()))
            guess = guess + rises.mean() + before @ weights
        filled[:, column] = np.where(has, y[:, column], guess)
    return filled
