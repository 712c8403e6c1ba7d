"""The kernel of a Gaussian process: how alike two feature vectors are.

    k(x, x') = exp(-|x - x'|^2 / 2 length^2) + linear x.x' / d

It has a noise of its own for each vector. What the vectors describe, it does not know.
"""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]
"""An array of 64-bit floating-point numbers."""

_EVALUATIONS = 60
"""Most evaluations of the likelihood in the choice of a kernel."""
_FARTHEST = np.array([3.0, 5.0, 9.0])
"""Most by which the logarithms of length, linear share and noise may differ from their priors'."""
_JITTER = 1e-6
"""Least noise; with less, rounding can make a covariance indefinite."""


class Kernel:
    """Similarity of standardised feature vectors, by the logarithms of length, linear, noise."""

    def __init__(self, logarithms: Array) -> None:
        self.length, self.linear, self.noise = np.exp(logarithms) + np.array([0.0, 0.0, _JITTER])

    @classmethod
    def chosen(cls, x: Array, y: Array) -> Self:
        """The most probable kernel of `x` (n, d) for targets `y` (n, epochs), given weak priors.

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

        start = middle + np.vstack([np.zeros(3), np.diag([-0.5, -0.7, -0.7])])
        options = {"maxfev": _EVALUATIONS, "xatol": 0.05, "fatol": 0.05, "initial_simplex": start}
        found = minimize(surprise, middle, method="Nelder-Mead", options=options)
        return cls(np.clip(found.x, middle - _FARTHEST, middle + _FARTHEST))

    def between(self, first: Array, second: Array) -> Array:
        """Similarity (n, m) of each of the `first` vectors (n, d) to each `second` one (m, d)."""
        squares = cdist(first, second, "sqeuclidean")
        products = first @ second.T / first.shape[1]
        return _covariance(squares, products, self.length, self.linear)

    def alone(self, x: Array) -> Array:
        """Similarity (n,) of each vector of `x` (n, d) to itself."""
        alone: Array = 1.0 + self.linear * (x * x).mean(axis=1)
        return alone


def _covariance(squares: Array, products: Array, length: float, linear: float) -> Array:
    covariance: Array = np.exp(-0.5 * squares / length**2) + linear * products
    return covariance
