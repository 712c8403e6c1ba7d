"""What an estimate says of a search and of final trainings; its seconds are for benchmarks."""

import json

import psutil
from tiny_search import finish, tiny_settings

from blockqnn.data import load
from blockqnn.estimate import estimate_search
from blockqnn.estimate.rehearsal import rehearse
from blockqnn.search.history import read_search
from blockqnn.search.records import Task
from blockqnn.search.search import prices_for
from flows.cli import main

AT_RANDOM = {
    "agent": {"kind": "random"},
    "schedule": [[1.0, 4]],
    "recipe": {"epochs": 1},
    "workers": {"kind": "local", "count": 2, "devices": ["cpu"]},
}
"""A search whose designs do not depend on accuracies: its trainings are known before."""


def trainings_of(directory):
    return sum(
        result.same_as is None and not result.outcome.reason.startswith("needs")
        for result in read_search(directory).results
    )


def test_of_a_search_at_random_its_trainings_are_counted_exactly(tmp_path):
    settings = tiny_settings(**AT_RANDOM)
    finish(tmp_path, settings)
    needs = estimate_search(settings)
    assert needs.trainings == trainings_of(tmp_path) < 24, "some of 24 are the same"
    assert needs.at_a_time == 2
    assert 0 < needs.each < needs.seconds
    # two processes that have imported torch, beside the flow, on a machine that can do that
    assert 2**29 < needs.memory < psutil.virtual_memory().total
    journal = (tmp_path / "journal.jsonl").stat().st_size
    assert journal < needs.disk < 4 * journal + 2**20, "small networks, and their weights"
    assert needs.device_memory is None


def test_candidates_of_further_rungs_are_trainings_too(tmp_path):
    settings = tiny_settings(**AT_RANDOM | {"rungs": [{"share": 0.25, "epochs": 2}]})
    task = Task.of(load(settings.data, settings.seed))
    prices = prices_for(settings, task, seconds=0.0)
    played = rehearse(settings, prices, tmp_path, 2, patience=100.0)
    first = [candidate for candidate, _ in played.trained if not candidate.rung]
    assert played.share == 1
    assert 0 < len(played.trained) - len(first) <= len(first) // 4


def test_a_dry_run_says_what_it_takes_and_leaves_nothing(tmp_path, capsys):
    runs = tmp_path / "runs"
    plan = ["blocks=[plain, residual]", "compare=[]", "seeds=2", "top=0", "selection_seeds=1"]
    own = ["--data", "digits", "--runs", str(runs), "--set", *plan, "recipe.epochs=5"]
    assert main(["train", *own, "--dry-run", "--json"]) == 0
    needs = json.loads(capsys.readouterr().out)
    assert needs["trainings"] == 4
    assert 0 < needs["each"] < needs["seconds"]
    assert not runs.exists()


def test_what_is_not_to_be_estimated_is_a_sentence(capsys):
    assert main(["search", "--json"]) == 2
    assert "--dry-run" in capsys.readouterr().err
    assert main(["estimate", "train", "--data", "nowhere"]) == 2
    assert main(["estimate", "search", "--set", "recipe.epochs=0"]) == 2
    assert "recipe.epochs is 0" in capsys.readouterr().err
