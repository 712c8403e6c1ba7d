"""Candidates stopped early: when, with what outcome, and the same after any interruption."""

import json
import os
import signal

import numpy as np
import pytest
from tiny_search import finish, journal_of, timeless, tiny_settings
from worker_processes import CODE, ONE, PATIENCE, holder, in_background, wait_for

from blockqnn.data import load
from blockqnn.errors import SettingsError
from blockqnn.search import Search
from blockqnn.search.candidate import train_candidate
from blockqnn.search.candidate_files import candidate_directory
from blockqnn.search.journal import without_times
from blockqnn.search.outcome import Outcome
from blockqnn.surrogate import CertainlyBad, StoppingRule, Surrogate
from blockqnn.training.devices import resolve
from blockqnn.workers.open import open_workers
from blockqnn.workers.protocol import WorkerDied, candidate_task
from flows.tracking.metrics import child_metrics, iteration_metrics

HALF_OF_FIRST = StoppingRule(50.0, 2.0, (((0.5,), 20.0, 5.0), ((0.0, 1.0), 1.0, 2.0)))
"""After one epoch: 20 + half of it, give or take 5; after two: the second and 1, give or take 2."""


def curve(*accuracies):
    return [{"epoch": e, "accuracy": a} for e, a in enumerate(accuracies, start=1)]


@pytest.mark.parametrize("seen", [(), (40.0,), (90.0,), (39.0, 45.5), (1.0, 1.0, 1.0)])
def test_who_may_still_do_well_goes_on(seen):
    HALF_OF_FIRST.judge(curve(*seen))  # 20 + 20 + 2 * 5 is 50; 45.5 + 1 + 2 * 2 is 50.5


@pytest.mark.parametrize(("seen", "predicted"), [((39.0,), 39.5), ((99.0, 44.0), 45.0)])
def test_who_certainly_ends_badly_is_stopped(seen, predicted):
    with pytest.raises(CertainlyBad) as stopped:
        HALF_OF_FIRST.judge(curve(*seen))
    assert stopped.value.predicted == pytest.approx(predicted)


def test_a_prediction_is_a_percentage():
    with pytest.raises(CertainlyBad) as stopped:
        StoppingRule(50.0, 2.0, (((1.0,), -30.0, 1.0),)).judge(curve(10.0))
    assert stopped.value.predicted == 0.0


def test_a_rule_travels_as_json():
    assert StoppingRule.from_dict(json.loads(json.dumps(HALF_OF_FIRST.to_dict()))) == HALF_OF_FIRST


def test_a_rule_says_what_the_surrogate_does():
    """1.645 deviations below what is needed is a chance of one in twenty."""
    draws = np.random.default_rng(0)
    features = draws.normal(size=(60, 4))
    ends = 50 + 5 * features[:, 0] + draws.normal(size=60)
    curves = np.stack([ends * 0.6 + draws.normal(size=60), ends * 0.9, ends], axis=1)
    surrogate = Surrogate().fit(features, curves)
    for seen in ([20.0], [35.0], [20.0, 35.0], [35.0, 52.0]):
        mean, deviation = surrogate.extrapolate(features[:1], [seen])
        for needed in (mean[0] + 1.6 * deviation[0], mean[0] + 1.7 * deviation[0]):
            rule = StoppingRule.of(surrogate, features[0], needed, 0.95)
            if needed < mean[0] + 1.645 * deviation[0]:
                rule.judge(curve(*seen))
            else:
                with pytest.raises(CertainlyBad) as stopped:
                    rule.judge(curve(*seen))
                assert stopped.value.predicted == pytest.approx(mean[0], abs=1e-6)


def test_only_a_stopped_outcome_has_a_prediction():
    outcome = Outcome(kind="stopped", predicted=31.5, curve=tuple(curve(20.0)))
    assert Outcome.from_dict(json.loads(json.dumps(outcome.to_dict()))) == outcome
    assert (outcome.accuracy, outcome.expected) == (None, 31.5)
    assert "predicted" not in Outcome(kind="trained", accuracy=50.0).to_dict()
    for wrong in ({"kind": "stopped"}, {"kind": "trained", "accuracy": 5.0, "predicted": 5.0}):
        with pytest.raises(ValueError, match=r"predicted is .*stopped outcome"):
            Outcome(**wrong)
    with pytest.raises(ValueError, match="accuracy is 3.0: only a trained"):
        Outcome(kind="stopped", predicted=3.0, accuracy=3.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stopping": {"worse": 1.0}}, r"stopping\.worse is 1\.0: give 0 to below 1"),
        ({"stopping": {"worse": 0.5, "certainty": 0.3}}, r"stopping\.certainty is 0\.3"),
        ({"stopping": {"after": 9}}, r"stopping\.after is 9: it has no effect while"),
        (
            {"stopping": {"worse": 0.5}, "recipe": {"epochs": 1}},
            r"stopping\.worse is 0\.5: a train",
        ),
    ],
)
def test_settings_without_sense_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        tiny_settings(**changes)


STOPPING = {
    "stopping": {"worse": 0.5, "certainty": 0.6, "after": 6, "spared": 0.2},
    "recipe": {"epochs": 3, "precision": "float32"},
    "schedule": [[1.0, 5]],
}


class Trained:
    """Trains for real, here, by the search's own rules."""

    def __init__(self, directory, settings):
        self.search = Search.open(directory, settings)
        self.data = load(settings.data, settings.seed)
        self.directory, self.settings = directory, settings

    def run(self, most=10**9):
        with self.search as search:
            while most and (candidate := search.ask()) is not None:
                rule = search.stopping_rule(candidate)
                place = candidate_directory(self.directory, candidate.number)
                place.mkdir(parents=True, exist_ok=True)
                arguments = candidate.block, self.settings, self.data, place, resolve("cpu")
                search.tell(candidate, train_candidate(*arguments, rule=rule))
                most -= 1
        return search


def test_a_search_stops_bad_candidates_and_the_same_ones_after_interruptions(tmp_path):
    settings = tiny_settings(**STOPPING)
    search = Trained(tmp_path / "whole", settings).run()
    assert search.finished
    stopped = [r for r in search.results if r.outcome.kind == "stopped"]
    trained = [r for r in search.results if r.outcome.kind == "trained"]
    assert len(stopped) >= 3
    assert all(1 <= len(r.outcome.curve) < 3 for r in stopped)
    assert all(len(r.outcome.curve) == 3 for r in trained)
    assert all(r.candidate.iteration > 0 for r in stopped), "nothing was known in the first"
    assert not any(r.outcome.kind == "stopped" for r in search.best(99))
    assert np.median([r.reward for r in stopped]) < np.median([r.reward for r in trained])
    while not Trained(tmp_path / "pieces", settings).run(most=4).finished:
        pass
    assert timeless(tmp_path / "pieces") == timeless(tmp_path / "whole")


def test_mlflow_tells_what_was_predicted_from_what_was_measured(tmp_path):
    def outcome(candidate):
        if candidate.number % 2 == 0:
            return Outcome(kind="trained", accuracy=40.0)
        seen = ({"epoch": 1, "accuracy": 20.0},)
        return Outcome(kind="stopped", predicted=90.0, curve=seen)

    history = finish(tmp_path, tiny_settings(space={"max_index": 6}), outcome)
    for result in history.results:
        names = {metric.key for metric in child_metrics(result, 0)}
        predicted = result.outcome.kind == "stopped"
        assert ("reward" in names, "predicted_reward" in names) == (not predicted, predicted)
    for iteration in range(history.iterations):
        whole = {metric.key: metric.value for metric in iteration_metrics(history, iteration)}
        highest = max(r.reward for r in history.results if r.outcome.kind == "trained")
        assert whole["mean_reward"] <= whole["best_reward"] <= highest
        assert whole["mean_accuracy"] == whole["best_accuracy"] == 40.0


def test_supplied_outcomes_without_curves_stop_nobody(tmp_path):
    settings = tiny_settings(**STOPPING)
    search = finish(tmp_path, settings, lambda c: Outcome(kind="trained", accuracy=50.0))
    assert search.finished
    assert {r["outcome"]["kind"] for r in journal_of(tmp_path) if "outcome" in r} == {"trained"}


def test_a_worker_killed_between_epochs_stops_at_the_same_one(tmp_path):
    """Hopeless from the eighth epoch on: whoever comes to it, after whatever kill."""
    rule = {"needed": 100.0, "margin": 0.0}
    rule["steps"] = [[[0.0] * seen, 100.0 if seen < 8 else 42.0, 1.0] for seen in range(1, 20)]
    settings = tiny_settings(workers=ONE, recipe={"epochs": 20})
    (tmp_path / "workers").mkdir()
    workers = open_workers(settings, tmp_path)
    try:
        attempt = in_background(workers, rule=rule)
        pid = holder(tmp_path)
        checkpoint = candidate_directory(tmp_path, 0) / "checkpoint"
        wait_for(checkpoint.exists, "a checkpoint")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            attempt.result(PATIENCE)
        outcome = workers.train({**candidate_task(0, CODE), "rule": rule})
        assert (outcome.kind, outcome.predicted, len(outcome.curve)) == ("stopped", 42.0, 8)
        other = workers.train({**candidate_task(1, CODE), "rule": rule})
    finally:
        workers.close()
    assert without_times(outcome.to_dict()) == without_times(other.to_dict())
