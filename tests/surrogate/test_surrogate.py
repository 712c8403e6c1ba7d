"""The surrogate on functions and curves whose truth is known."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from blockqnn.surrogate import Surrogate
from blockqnn.surrogate.gaussian_process import LARGEST

NOISE = 1.5
EPOCHS = 6


def drawn(count: int, seed: int = 0, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Features, and curves that rise to a function of them; what is left at random stays along the
    curve, and each epoch adds noise of its own.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, width))
    final = 60 + 8 * np.sin(x[:, 0]) + 5 * x[:, 1] * (x[:, 2] > 0)
    own = rng.normal(scale=4, size=count)
    rise = 1 - 0.6 ** np.arange(1, EPOCHS + 1)
    noise = rng.normal(scale=NOISE, size=(count, EPOCHS))
    return x, 10 + (final + own - 10)[:, None] * rise + noise


def rmse(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predicted - true) ** 2)))


def covered(mean: np.ndarray, deviation: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean(np.abs(mean - true) < 1.6449 * deviation))  # 90 % of a normal


def test_before_any_result_it_says_the_prior_of_everything():
    x = np.zeros((3, 2))
    for surrogate in (
        Surrogate(mean=40, deviation=20),
        Surrogate(mean=40, deviation=20).fit(np.zeros((0, 2)), np.zeros((0, 4))),
    ):
        mean, deviation = surrogate.predict(x, 4)
        assert (mean.tolist(), deviation.tolist()) == ([40] * 3, [20] * 3)
        mean, deviation = surrogate.extrapolate(x, np.full((3, 1), 12.0), 4)
        assert (mean.tolist(), deviation.tolist()) == ([40] * 3, [20] * 3)


def test_one_result_moves_the_prior_most_where_it_was_seen():
    surrogate = Surrogate(mean=50, deviation=20).fit([[0.0, 0.0]], [80.0])
    (here, there), deviation = surrogate.predict([[0.0, 0.0], [9.0, -9.0]])
    assert 50 < there < here < 80
    assert 0 < deviation[0] < deviation[1]


def test_a_known_function_is_recovered():
    x, curves = drawn(400)
    surrogate = Surrogate().fit(x[:200], curves[:200])
    mean, _ = surrogate.predict(x[200:])
    true = curves[200:, -1]
    own_noise = np.hypot(4 * (1 - 0.6**EPOCHS), NOISE)
    assert rmse(mean, true) < 1.35 * own_noise  # no prediction can be below it
    assert rmse(mean, true) < 0.75 * np.std(true)  # the error of always saying the mean


def test_it_is_the_gaussian_process_of_scikit_learn():
    x, curves = drawn(60)
    surrogate = Surrogate().fit(x[:40], curves[:40])
    found, scaled = surrogate.predict(x[40:], 3)
    kernel = surrogate._kernel
    x = (x - x[:40].mean(axis=0)) / surrogate._spread
    other = GaussianProcessRegressor(
        RBF(kernel.length)
        + ConstantKernel(kernel.linear / x.shape[1]) * DotProduct(1e-4)
        + WhiteKernel(kernel.noise),
        optimizer=None,
        alpha=1e-12,
    )
    level = (50 + curves[:40, 2].sum()) / 41  # what is said before any result counts as one
    other.fit(x[:40], curves[:40, 2] - level)
    mean, deviation = other.predict(x[40:], return_std=True)
    assert np.allclose(found, level + mean)
    assert np.allclose(scaled / deviation, scaled[0] / deviation[0])


def test_features_that_say_nothing_cost_little():
    x, curves = drawn(300)
    noise = np.random.default_rng(1).normal(size=(300, 20))
    mean, _ = Surrogate().fit(x[:100], curves[:100]).predict(x[100:])
    x = np.hstack([x, noise])
    burdened, _ = Surrogate().fit(x[:100], curves[:100]).predict(x[100:])
    assert rmse(burdened, curves[100:, -1]) < 1.2 * rmse(mean, curves[100:, -1])


def test_a_table_of_plain_numbers_is_learned_too():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, size=(300, 6)).astype(float)
    scores = x[:, 0] ** 2 - 3 * x[:, 1] + rng.normal(scale=0.1, size=300)
    mean, _ = Surrogate(mean=0, deviation=10).fit(x[:150], scores[:150]).predict(x[150:])
    assert rmse(mean, scores[150:]) < 0.2 * np.std(scores)


def test_intervals_hold_what_they_promise():
    """90 % intervals over twenty draws, at every epoch, without and with a beginning seen."""
    plain, extrapolated = [], []
    for seed in range(20):
        x, curves = drawn(160, seed)
        surrogate = Surrogate().fit(x[:80], curves[:80])
        for epoch in (1, EPOCHS):
            true = curves[80:, epoch - 1]
            plain.append(covered(*surrogate.predict(x[80:], epoch), true))
        found = surrogate.extrapolate(x[80:], curves[80:, :2])
        extrapolated.append(covered(*found, curves[80:, -1]))
    assert 0.86 < np.mean(plain) < 0.94
    assert 0.86 < np.mean(extrapolated) < 0.94


def test_the_mean_of_many_trainings_is_surer_than_one():
    x, curves = drawn(100)
    surrogate = Surrogate().fit(x, curves)
    _, of_one = surrogate.predict(x)
    _, of_many = surrogate.predict(x, noise=False)
    assert (of_many < 0.75 * of_one).all()


def test_the_beginning_of_a_curve_says_more_than_the_features():
    x, curves = drawn(400)
    surrogate = Surrogate().fit(x[:200], curves[:200])
    true = curves[200:, -1]
    errors, deviations = [], []
    for seen in range(1, EPOCHS):
        mean, deviation = surrogate.extrapolate(x[200:], curves[200:, :seen])
        errors.append(rmse(mean, true))
        deviations.append(deviation.mean())
    mean, deviation = surrogate.predict(x[200:])
    assert errors[1] < 0.75 * rmse(mean, true)
    assert errors[-1] < 0.6 * rmse(mean, true)
    assert (np.diff([deviation.mean(), *deviations]) < 0).all()


def test_nothing_seen_is_a_prediction_and_a_seen_epoch_is_known():
    x, curves = drawn(60)
    surrogate = Surrogate().fit(x[:40], curves[:40])
    nothing = surrogate.extrapolate(x[40:], curves[40:, :0])
    assert np.allclose(nothing, surrogate.predict(x[40:]))
    mean, deviation = surrogate.extrapolate(x[40:], curves[40:, :3], 2)
    assert (mean == curves[40:, 1]).all() and not deviation.any()


def test_stopped_curves_are_learned_from():
    """The worse half of the networks was stopped after two epochs, as a search would stop it."""
    x, curves = drawn(400)
    training = curves[:200].copy()
    stopped = training[:, 1] < np.median(training[:, 1])
    training[stopped, 2:] = np.nan
    surrogate = Surrogate().fit(x[:200], training)
    true = curves[200:, -1]
    mean, deviation = surrogate.predict(x[200:])
    whole, _ = Surrogate().fit(x[:200], curves[:200]).predict(x[200:])
    survivors, _ = Surrogate().fit(x[:200][~stopped], training[~stopped]).predict(x[200:])
    assert rmse(mean, true) < 1.05 * rmse(whole, true)
    assert rmse(mean, true) < 0.9 * rmse(survivors, true)
    assert covered(mean, deviation, true) > 0.75  # guesses are taken for results


def test_no_curve_needs_to_be_complete():
    x, curves = drawn(30)
    curves[:, 3:] = np.nan
    mean, deviation = Surrogate().fit(x, curves).predict(x)
    assert np.isfinite(mean).all() and (deviation > 0).all()


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 12), st.integers(1, 4), st.sampled_from([1e-3, 1.0, 1e6]), st.integers(0, 2**32)
)
def test_any_table_gives_finite_numbers(count, epochs, scale, seed):
    """Equal rows, constant features and constant results among them."""
    rng = np.random.default_rng(seed)
    x = scale * rng.integers(0, 2, size=(count, 3)).astype(float)
    y = scale * rng.integers(0, 3, size=(count, epochs)).astype(float)
    mean, deviation = Surrogate().fit(x, y).predict(np.vstack([x, [[0.0, 5.0, -5.0]]]))
    assert np.isfinite(mean).all() and np.isfinite(deviation).all() and (deviation > 0).all()


def test_fitted_again_it_says_the_same():
    x, curves = drawn(120)
    surrogate = Surrogate().fit(x[:60], curves[:60])
    surrogate.fit(x[:90], curves[:90])
    again = Surrogate().fit(x[:90], curves[:90])
    for found, expected in zip(surrogate.predict(x), again.predict(x), strict=True):
        assert (found == expected).all()


def test_the_latest_curves_count_when_there_are_too_many():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(LARGEST + 5, 2))
    y = x[:, 0].copy()
    y[:5] = 1e9
    mean, _ = Surrogate(mean=0, deviation=1).fit(x, y).predict(x[5:])
    assert rmse(mean, y[5:]) < 0.1


def test_a_search_can_afford_it():
    x, curves = drawn(400, width=30)
    Surrogate().fit(x, curves)
    begun = time.process_time()
    Surrogate().fit(x, curves)
    assert time.process_time() - begun < 2  # of CPU; about 0.2 on a quiet core


@pytest.mark.parametrize(
    ("features", "curves", "message"),
    [
        ([[1.0], [2.0]], [50.0], "do not fit"),
        ([1.0, 2.0], [50.0, 60.0], "do not fit"),
        ([[np.nan]], [50.0], "not a finite number"),
        ([[1.0]], [[np.nan, 50.0]], "not a finite number"),
        ([[1.0]], [[50.0, np.nan, 60.0]], "gap"),
    ],
)
def test_what_is_not_a_table_of_curves_is_refused(features, curves, message):
    with pytest.raises(ValueError, match=message):
        Surrogate().fit(features, curves)


def test_epochs_that_nobody_was_trained_for_are_refused():
    surrogate = Surrogate().fit([[0.0], [1.0]], [[10.0, 20.0], [20.0, 30.0]])
    with pytest.raises(ValueError, match="epoch is 3: the curves learned from have 1 to 2"):
        surrogate.predict([[0.0]], 3)
    with pytest.raises(ValueError, match="epoch is 0"):
        surrogate.extrapolate([[0.0]], [[10.0]], 0)
    with pytest.raises(ValueError, match=r"seen has shape \(1,\): give \(1, epochs\)"):
        surrogate.extrapolate([[0.0]], [10.0])
    with pytest.raises(ValueError, match="deviation is 0"):
        Surrogate(deviation=0)
