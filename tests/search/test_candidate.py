"""One candidate: restarts, outcomes, budgets, memory that runs out for real."""

import json
from dataclasses import replace

import pytest
import torch
from tiny_training import CPU, program, tiny_data, tiny_settings, without_seconds

from blockqnn.cost import Cost
from blockqnn.data import Dataset, ImageSet, load
from blockqnn.search import candidate
from blockqnn.search.candidate import train_candidate
from blockqnn.search.candidate_files import identity
from blockqnn.search.costs import over_budget
from blockqnn.search.outcome import Outcome
from blockqnn.settings import Budget, DataSettings, Recipe, RewardSettings
from blockqnn.space import Block
from blockqnn.training.trainer import Trainer
from blockqnn.zoo import BLOCKS

RESIDUAL = BLOCKS["residual"]


@pytest.fixture(scope="module")
def digits():
    return tiny_data()


class Stop(Exception):
    pass


class TestOutcomes:
    def test_trained(self, digits, tmp_path):
        outcome = train_candidate(RESIDUAL, tiny_settings(epochs=2), digits, tmp_path, CPU)
        assert outcome.kind == "trained"
        assert outcome.accuracy == outcome.curve[-1]["accuracy"]
        assert len(outcome.curve) == 2
        assert outcome.seconds >= sum(entry["seconds"] for entry in outcome.curve)
        assert Outcome.from_dict(json.loads(json.dumps(outcome.to_dict()))) == outcome

    def test_the_same_candidate_has_the_same_outcome_whoever_writes_it_down(self, digits, tmp_path):
        curves = []
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            directory = tmp_path / name
            directory.mkdir()
            settings = replace(tiny_settings(epochs=1), seed=seed)
            outcome = train_candidate(RESIDUAL, settings, digits, directory, CPU)
            curves.append(without_seconds(outcome.curve))
        assert curves[0] == curves[1]
        assert curves[0] != curves[2]

    def test_no_better_than_chance_starts_again_three_times(self, digits, tmp_path, monkeypatch):
        monkeypatch.setattr(Dataset, "constant_guess", lambda data, metric: 100.0)
        starts = []

        class Recorded(Trainer):
            def run(self):
                starts.append(next(self.network.parameters()).detach().clone())
                return super().run()

        monkeypatch.setattr(candidate, "Trainer", Recorded)
        outcome = train_candidate(RESIDUAL, tiny_settings(), digits, tmp_path, CPU)
        assert outcome.kind == "diverged"
        assert outcome.accuracy is None
        assert outcome.restarts == 3
        assert "no better than chance" in outcome.reason
        assert len(starts) == 4
        assert not any(torch.equal(starts[0], other) for other in starts[1:])  # fresh weights
        # 0.01 * 0.4 ** 3, in the only epoch of the last start
        assert [e["learning_rate"] for e in outcome.curve] == pytest.approx([0.00064])

    def test_a_later_start_may_succeed(self, digits, tmp_path, monkeypatch):
        guesses = iter([100.0, 100.0, 0.0])
        monkeypatch.setattr(Dataset, "constant_guess", lambda data, metric: next(guesses))
        outcome = train_candidate(RESIDUAL, tiny_settings(epochs=1), digits, tmp_path, CPU)
        assert (outcome.kind, outcome.restarts) == ("trained", 2)
        assert outcome.curve[0]["learning_rate"] == pytest.approx(0.0016)

    @pytest.mark.parametrize(
        ("rate", "kind", "restarts"), [(0.01, "trained", 0), (1e-12, "diverged", 3)]
    )
    def test_by_objective_accuracy_a_slow_start_is_none_if_the_loss_falls(
        self, tmp_path, monkeypatch, rate, kind, restarts
    ):
        monkeypatch.setattr(Dataset, "constant_guess", lambda data, metric: 100.0)
        all_digits = load(DataSettings(name="digits", holdout=0.3), 0)
        settings = tiny_settings(epochs=1, batch=16, learning_rate=rate)
        settings = replace(settings, reward=RewardSettings(objective="accuracy"))
        outcome = train_candidate(RESIDUAL, settings, all_digits, tmp_path, CPU)
        assert (outcome.kind, outcome.restarts) == (kind, restarts)

    def test_balanced_accuracy_is_an_outcome_s_where_the_reward_is_made_of_it(
        self, digits, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(Dataset, "constant_guess", lambda data, metric: 0.0)
        settings = tiny_settings(epochs=2)
        balanced = RewardSettings(objective="accuracy", metric="balanced_accuracy")
        settings = replace(settings, reward=balanced)
        outcome = train_candidate(RESIDUAL, settings, digits, tmp_path, CPU)
        last = outcome.curve[-1]
        assert outcome.accuracy == last["accuracy"]
        assert outcome.balanced_accuracy == outcome.expected == last["balanced_accuracy"]
        assert Outcome.from_dict(json.loads(json.dumps(outcome.to_dict()))) == outcome

    def test_without_restarts(self, digits, tmp_path, monkeypatch):
        monkeypatch.setattr(Dataset, "constant_guess", lambda data, metric: 100.0)
        outcome = train_candidate(RESIDUAL, tiny_settings(restarts=0), digits, tmp_path, CPU)
        assert (outcome.kind, outcome.restarts) == ("diverged", 0)

    def test_not_finite_in_the_first_epoch_starts_again(self, digits, tmp_path):
        settings = tiny_settings(epochs=2, optimizer="sgd", learning_rate=1e38)
        outcome = train_candidate(RESIDUAL, settings, digits, tmp_path, CPU)
        assert (outcome.kind, outcome.restarts, outcome.curve) == ("diverged", 3, ())
        assert outcome.reason == "the loss was not finite in epoch 1"

    def test_weights_lost_in_the_very_last_step_are_noticed(self, digits, tmp_path):
        recipe = Recipe(  # one step in all: its loss is fine, the weights after it are not
            epochs=1, batch=10_000, optimizer="sgd", learning_rate=1e300, precision="float32"
        )
        settings = replace(tiny_settings(), recipe=recipe)
        outcome = train_candidate(RESIDUAL, settings, digits, tmp_path, CPU)
        assert (outcome.kind, outcome.accuracy) == ("diverged", None)
        assert "not finite" in outcome.reason

    def test_not_finite_later_is_the_end(self, digits, tmp_path, monkeypatch):
        monkeypatch.setattr(Dataset, "constant_guess", lambda data, metric: 0.0)
        settings = tiny_settings(optimizer="sgd", learning_rate=0.01, decay=1e38, decay_epochs=1)
        outcome = train_candidate(RESIDUAL, settings, digits, tmp_path, CPU)
        assert (outcome.kind, outcome.restarts, len(outcome.curve)) == ("diverged", 0, 1)
        assert outcome.reason == "the loss was not finite in epoch 2"

    def test_out_of_memory_is_infeasible_and_the_process_goes_on(self, tmp_path):
        with program(tmp_path, "memory") as process:
            out, _ = process.communicate()
        assert out.splitlines() == ["infeasible out of memory", "trained -"]

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
            RuntimeError("std::bad_alloc"),
            RuntimeError("could not create a primitive"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        ],
        ids=str,
    )
    def test_every_library_says_it_in_its_words(self, digits, tmp_path, monkeypatch, error):
        def fail(self):
            raise error

        monkeypatch.setattr(Trainer, "run", fail)
        outcome = train_candidate(RESIDUAL, tiny_settings(), digits, tmp_path, CPU)
        assert (outcome.kind, outcome.reason) == ("infeasible", "out of memory")

    def test_other_errors_are_not_the_candidates_doing(self, digits, tmp_path, monkeypatch):
        def fail(self):
            raise RuntimeError("the driver is gone")

        monkeypatch.setattr(Trainer, "run", fail)
        with pytest.raises(RuntimeError, match="the driver is gone"):
            train_candidate(RESIDUAL, tiny_settings(), digits, tmp_path, CPU)

    def test_an_empty_block_trains(self, digits, tmp_path):
        empty = Block.parse("(1,7,0,0,0)")
        outcome = train_candidate(empty, tiny_settings(epochs=1), digits, tmp_path, CPU)
        assert outcome.kind in ("trained", "diverged")

    def test_the_best_constant_guess(self, digits):
        labels = torch.tensor([3, 3, 1, 0, 3])
        held_out = ImageSet(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), labels)
        data = replace(digits, held_out=held_out)
        assert data.constant_guess() == 60.0
        three_classes = data.constant_guess("balanced_accuracy")
        assert three_classes == pytest.approx(100 / 3)

    def test_a_candidate_goes_on_in_its_restart(self, digits, tmp_path, monkeypatch):
        settings = tiny_settings(epochs=2)
        guesses = iter([100.0, 0.0, 0.0, 0.0])  # the first start fails, whatever it does
        monkeypatch.setattr(Dataset, "constant_guess", lambda data, metric: next(guesses))
        run = Trainer.run

        def stop_after_the_first_epoch(self):
            save = self.checkpoint.save

            def save_and_stop(state):
                save(state)
                raise Stop

            self.checkpoint.save = save_and_stop
            return run(self)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "run", stop_after_the_first_epoch)
            with pytest.raises(Stop):
                train_candidate(RESIDUAL, settings, digits, tmp_path, CPU)
        resumed = train_candidate(RESIDUAL, settings, digits, tmp_path, CPU)
        (tmp_path / "checkpoint").unlink()
        guesses = iter([100.0, 0.0])
        whole = train_candidate(RESIDUAL, settings, digits, tmp_path, CPU)
        assert resumed.restarts == whole.restarts == 1
        assert without_seconds(resumed.curve) == without_seconds(whole.curve)
        assert resumed.seconds > resumed.curve[0]["seconds"]  # the time before the stop counts

    def test_the_callers_random_numbers_stay(self, digits, tmp_path):
        state = torch.get_rng_state()
        train_candidate(RESIDUAL, tiny_settings(epochs=1), digits, tmp_path, CPU)
        assert torch.equal(torch.get_rng_state(), state)


class TestBudget:
    COST = Cost(parameters=1_000, macs=2_000_000, activation_bytes=3_000)
    PLAIN = Cost(parameters=7, macs=800_000, activation_bytes=7)

    @pytest.mark.parametrize(
        ("budget", "reason"),
        [
            ({"macs": 2_000_000, "parameters": 1_000, "memory": 784_000}, ""),
            ({"macs": None, "parameters": None, "memory": None}, ""),
            ({"macs": 1_999_999}, "needs 2,000,000 multiply-accumulates, budget.macs is 1,999,999"),
            ({"parameters": 999}, "needs 1,000 parameters, budget.parameters is 999"),
            # 16 bytes a parameter, and the activations of 256 images
            ({"memory": 783_999}, "needs 784,000 bytes of memory, budget.memory is 783,999"),
            ({"times_plain": 2.5}, ""),  # 2,000,000 of 800,000
            (
                {"times_plain": 2.0},
                "needs 2.5 times the multiply-accumulates of block plain, "
                "budget.times_plain is 2.0",
            ),
        ],
    )
    def test_what_exceeds_it_is_named(self, budget, reason):
        assert over_budget(self.COST, Budget(**budget), Recipe(batch=256), self.PLAIN) == reason


def test_identity_names_all_that_the_outcome_depends_on():
    settings = tiny_settings()
    base = identity(RESIDUAL, settings, "f")
    assert identity(RESIDUAL, tiny_settings(), "f") == base
    changed = [
        identity(BLOCKS["S"], settings, "f"),
        identity(RESIDUAL, settings, "g"),
        identity(RESIDUAL, replace(settings, seed=1), "f"),
        identity(RESIDUAL, tiny_settings(filters=(4, 8)), "f"),
        identity(RESIDUAL, tiny_settings(epochs=3), "f"),
        identity(RESIDUAL, tiny_settings(precision="bfloat16"), "f"),
    ]
    assert len({base, *changed}) == 7
    harmless = replace(settings, tracking=False, batch=3, budget=Budget(macs=10**9))
    assert identity(RESIDUAL, harmless, "f") == base


@pytest.mark.gpu
def test_a_full_gpu_is_infeasible(digits, tmp_path):
    device = torch.device("cuda:0")
    block = Block.parse("(1,1,1,0,0)(2,7,0,0,0)")
    settings = tiny_settings(filters=(400_000, 400_000))  # 640 GB of weights
    outcome = train_candidate(block, settings, digits.to(device), tmp_path, device)
    assert outcome.kind == "infeasible"
