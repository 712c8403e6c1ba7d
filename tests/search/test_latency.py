"""Measured latency as a budget, as a part of the reward, and in the journal."""

import os
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
import torch
from tiny_search import asked, cached_load, finish, journal_of, supplied, tiny_settings
from tiny_training import CPU, tiny_data
from tiny_training import tiny_settings as training_settings

from blockqnn.search import Search
from blockqnn.search.candidate import train_candidate
from blockqnn.search.history import read_search
from blockqnn.search.outcome import Outcome
from blockqnn.settings import Budget, LatencySettings, RewardSettings
from blockqnn.surrogate import StoppingRule
from blockqnn.zoo import BLOCKS
from flows.tracking.metrics import child_metrics

MEASURED = LatencySettings(source="measured")


@pytest.fixture(scope="module")
def digits():
    return tiny_data()


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Digits are loaded once."""
    monkeypatch.setattr("blockqnn.search.search.load", cached_load)


def timed(candidate):
    """As `supplied`, with a latency that the number says."""
    return replace(supplied(candidate), latency=float(2 ** (candidate.number % 4)))


class TestTraining:
    def test_over_the_budget_nothing_is_trained(self, digits, tmp_path):
        settings = replace(
            training_settings(epochs=1), budget=Budget(latency=1e-6), latency=MEASURED
        )
        outcome = train_candidate(BLOCKS["residual"], settings, digits, tmp_path, CPU)
        assert (outcome.kind, outcome.curve, outcome.accuracy) == ("infeasible", (), None)
        assert outcome.latency > 1e-6
        assert outcome.reason.startswith("takes ")
        assert outcome.reason.endswith(" ms for a forward pass, budget.latency is 1e-06 ms")

    def test_within_it_the_training_is_the_same_as_unmeasured(self, digits, tmp_path):
        plain = training_settings(epochs=1)
        settings = replace(plain, latency=LatencySettings(measure=True, batch=8, passes=3))
        measured, unmeasured = (
            train_candidate(BLOCKS["residual"], s, digits, tmp_path / name, CPU)
            for s, name in ((settings, "a"), (plain, "b"))
            if not (tmp_path / name).mkdir()
        )
        assert 0 < measured.latency < 1000
        assert unmeasured.latency is None
        assert measured.accuracy == unmeasured.accuracy
        assert measured.curve[0]["loss"] == unmeasured.curve[0]["loss"]
        assert Outcome.from_dict(measured.to_dict()) == measured

    def test_a_resumed_training_keeps_the_latency_it_began_with(self, digits, tmp_path):
        class Interrupted:
            def costing(self, price):
                return self

            def judge(self, curve):
                if len(curve) == 2:  # the checkpoint is that of the first epoch
                    raise KeyboardInterrupt

        settings = replace(training_settings(epochs=3), latency=LatencySettings(measure=True))
        arguments = BLOCKS["residual"], settings, digits, tmp_path, CPU
        with pytest.raises(KeyboardInterrupt):
            train_candidate(*arguments, rule=Interrupted())
        begun = torch.load(BytesIO((tmp_path / "checkpoint").read_bytes()[32:]), weights_only=True)
        outcome = train_candidate(*arguments)
        assert outcome.latency == begun["latency"]
        assert [entry["epoch"] for entry in outcome.curve] == [1, 2, 3]

    def test_a_pass_beyond_memory_matters_where_a_budget_asks_for_it(self, tmp_path):
        script = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from tiny_training import CPU, tiny_data, tiny_settings
from blockqnn.search.candidate import train_candidate
from blockqnn.settings.search import Budget, LatencySettings
from blockqnn.zoo import BLOCKS

plain = tiny_settings(epochs=1)
data, to = tiny_data(), Path(sys.argv[1])
train_candidate(BLOCKS["residual"], plain, data, to, CPU)  # what is loaded late is loaded
used = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
limit = int(used.split()[1]) * 1024 + 40 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for latency in (None, 1000.0):
    source = "predicted" if latency is None else "measured"
    how = LatencySettings(measure=True, source=source, batch=16384)
    settings = replace(plain, latency=how, budget=Budget(latency=latency))
    outcome = train_candidate(BLOCKS["residual"], settings, data, to, CPU)
    print(outcome.kind, outcome.latency, outcome.out_of_memory, outcome.reason)
"""
        run = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            cwd=Path(__file__).parents[1] / "helpers",
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
        )
        assert run.stdout.splitlines() == [
            "trained None False ",
            "infeasible None True out of memory in a pass of 16,384 images",
        ], run.stderr

    def test_more_images_take_longer(self, digits, tmp_path):
        latencies = []
        for batch in (1, 2048):
            latency = LatencySettings(source="measured", batch=batch, passes=5)
            settings = replace(
                training_settings(epochs=1), latency=latency, budget=Budget(latency=1e-6)
            )
            outcome = train_candidate(BLOCKS["residual"], settings, digits, tmp_path, CPU)
            latencies.append(outcome.latency)
        assert latencies[1] > latencies[0]


class TestSearch:
    def test_it_costs_its_weight_for_each_doubling(self, tmp_path):
        for weight, name in ((0.0, "free"), (1.5, "weighed")):
            changes = {"schedule": [[1.0, 5]], "reward": {"latency": weight}}
            if weight:
                changes["latency"] = {"source": "measured"}
            finish(tmp_path / name, tiny_settings(**changes), timed)
        free, weighed = (read_search(tmp_path / name) for name in ("free", "weighed"))
        trained = 0
        for one, other in zip(free.results, weighed.results, strict=True):
            assert one.candidate.block == other.candidate.block
            if one.outcome.kind == "trained":
                number = one.candidate.number if one.same_as is None else one.same_as
                assert one.reward - other.reward == pytest.approx(1.5 * (number % 4))
                trained += 1
            else:
                assert one.reward == other.reward  # chance
        assert trained > 10

    def test_parameters_cost_likewise(self, tmp_path):
        for weight, name in ((0.0, "free"), (-2.0, "weighed")):
            settings = tiny_settings(schedule=[[1.0, 2]], reward={"parameters": weight})
            finish(tmp_path / name, settings)
        for one, other in zip(
            read_search(tmp_path / "free").results,
            read_search(tmp_path / "weighed").results,
            strict=True,
        ):
            if one.outcome.kind == "trained":
                doublings = (one.reward - other.reward) / -2.0
                assert 2**doublings * 1e6 == pytest.approx(one.cost.parameters)

    def test_it_is_the_journals_so_a_resumed_search_goes_on_with_it(self, tmp_path):
        settings = tiny_settings(reward={"latency": 1.0}, latency={"source": "measured"})
        finish(tmp_path / "whole", settings, timed)
        for _ in range(100):
            if finish(tmp_path / "stopped", settings, timed, most=1).finished:
                break
        whole, stopped = (read_search(tmp_path / name) for name in ("whole", "stopped"))
        assert [r.reward for r in whole.results] == [r.reward for r in stopped.results]
        first = next(r for r in journal_of(tmp_path / "whole") if r["type"] == "outcome")
        assert first["outcome"]["latency"] == 1.0

    def test_an_outcome_without_one_where_it_is_weighed_is_not_taken(self, tmp_path):
        with Search.open(
            tmp_path, tiny_settings(reward={"latency": 1.0}, latency={"source": "measured"})
        ) as search:
            candidate = asked(search)[0]
            with pytest.raises(ValueError, match="reward.latency needs one"):
                search.tell(candidate, Outcome(kind="trained", accuracy=50.0))
            search.tell(candidate, Outcome(kind="diverged"))  # has chance as its reward
            assert search.result(0).reward == 10.0

    def test_mlflow_has_it(self, tmp_path):
        finish(tmp_path, tiny_settings(latency={"measure": True}), timed)
        history = read_search(tmp_path)
        for result in history.results[:4]:
            metrics = {metric.key: metric.value for metric in child_metrics(result, 0)}
            assert metrics["latency_ms"] == result.outcome.latency


def test_a_stopping_rule_takes_the_latency_into_account():
    curve = [{"accuracy": 40.0}]
    rule = StoppingRule(needed=40.0, margin=0.0, steps=(((1.0,), 0.0, 1.0),))
    rule.judge(curve)
    with pytest.raises(Exception, match="certain to end badly"):
        rule.costing(0.5).judge(curve)


@pytest.mark.parametrize("latency", [0.0, -1.0, float("nan")])
def test_an_outcome_s_latency_is_above_zero(latency):
    with pytest.raises(ValueError, match="latency is"):
        Outcome(kind="trained", accuracy=1.0, latency=latency)


def test_when_it_is_measured():
    settings = training_settings()
    assert not settings.measures_latency
    assert replace(settings, latency=LatencySettings(measure=True)).measures_latency
    for uses in ({"budget": Budget(latency=5.0)}, {"reward": RewardSettings(latency=-1.0)}):
        assert replace(settings, **uses, latency=MEASURED).measures_latency
        assert not replace(settings, **uses).measures_latency  # it is predicted
        assert replace(settings, **uses).needs_prices
