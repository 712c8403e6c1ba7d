"""A search goes on after a kill at any moment, with its own settings, one writer at a time."""

import os
import random
import signal
import socket
import subprocess
import sys
from contextlib import closing

import pytest
from tiny_search import (
    asked,
    cached_load,
    finish,
    journal_of,
    supplied,
    timeless,
    tiny_settings,
)

from blockqnn.errors import SearchError
from blockqnn.search import Search
from blockqnn.search.journal import Journal
from blockqnn.search.search import read_search


@pytest.fixture(autouse=True, scope="module")
def hundreds_of_searches():
    """Images are read once, and nothing waits for the disk: power is not lost here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blockqnn.search.search.load", cached_load)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The directory of a whole search."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    finish(directory, tiny_settings())
    return directory


# Kills


def test_killed_after_any_record_the_search_ends_the_same(uninterrupted, tmp_path):
    whole = (uninterrupted / "journal.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    expected = timeless(uninterrupted)
    for count in range(len(lines) + 1):
        directory = tmp_path / str(count)
        directory.mkdir()
        (directory / "journal.jsonl").write_bytes(b"".join(lines[:count]))
        finish(directory, tiny_settings(), rng=random.Random(count))
        assert timeless(directory) == expected, count


def test_killed_within_any_record_the_search_ends_the_same(uninterrupted, tmp_path):
    lines = (uninterrupted / "journal.jsonl").read_bytes().splitlines(keepends=True)
    expected = timeless(uninterrupted)
    for count in range(1, len(lines)):
        directory = tmp_path / str(count)
        directory.mkdir()
        torn = lines[count][: len(lines[count]) // 2]
        (directory / "journal.jsonl").write_bytes(b"".join(lines[:count]) + torn)
        finish(directory, tiny_settings())
        assert timeless(directory) == expected, count


def test_stopped_after_every_tell_the_search_ends_the_same(uninterrupted, tmp_path):
    rng = random.Random(0)
    for _ in range(100):
        if finish(tmp_path, tiny_settings(), rng=rng, most=1).finished:
            break
    assert timeless(tmp_path) == timeless(uninterrupted)


@pytest.mark.parametrize("kind", ["dyna_q", "evolution", "random"])
@pytest.mark.parametrize("max_index", [2, 4])  # the smaller space is soon used up
def test_every_agent_ends_the_same_wherever_it_was_killed(tmp_path, kind, max_index):
    settings = tiny_settings(
        rungs=[{"share": 0.5, "epochs": 3}, {"share": 0.5, "epochs": 3}],
        agent={"kind": kind, **({"imagined": 64} if kind == "dyna_q" else {})},
        space={"max_index": max_index},
        schedule=[[1.0, 1], [0.0, 3]],
        stopping={"worse": 0.5, "after": 4},
    )
    finish(tmp_path / "whole", settings)
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    expected = timeless(tmp_path / "whole")
    for count in range(1, len(lines)):
        directory = tmp_path / str(count)
        directory.mkdir()
        (directory / "journal.jsonl").write_bytes(b"".join(lines[:count]))
        finish(directory, settings, rng=random.Random(count))
        assert timeless(directory) == expected, count


def test_a_batch_of_proposals_torn_in_half_is_completed_before_anything_is_settled(tmp_path):
    settings = tiny_settings(budget={"parameters": 1})  # all are settled as soon as they are known
    finish(tmp_path / "whole", settings)
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[:4]))
    finish(tmp_path, settings)
    assert timeless(tmp_path) == timeless(tmp_path / "whole")


def test_a_pending_candidate_comes_first_after_a_restart(tmp_path):
    with Search.open(tmp_path, tiny_settings()) as search:
        held = asked(search)
    with Search.open(tmp_path, tiny_settings()) as search:
        assert asked(search) == held
        assert search.pending[: len(held)] != []


@pytest.mark.parametrize("change", ["removed", "repeated", "swapped"])
def test_whole_lines_that_do_not_follow_are_refused(uninterrupted, tmp_path, change):
    lines = (uninterrupted / "journal.jsonl").read_bytes().splitlines(keepends=True)
    for place in range(len(lines) - 1):
        moved = list(lines)
        if change == "removed":
            del moved[place]
        elif change == "repeated":
            moved.insert(place, moved[place])
        else:
            moved[place : place + 2] = reversed(moved[place : place + 2])
        damaged = b"".join(moved)
        (tmp_path / "journal.jsonl").write_bytes(damaged)
        with pytest.raises(SearchError, match="does not follow from those before it"):
            Search.open(tmp_path, tiny_settings())
        with pytest.raises(SearchError, match="does not follow from those before it"):
            read_search(tmp_path)
        assert (tmp_path / "journal.jsonl").read_bytes() == damaged


# Changed settings

REFUSED = {
    "seed": (1, 0, 1),
    "mode": ("async", "sync", "async"),
    "batch": (7, 6, 7),
    "space.max_index": ({"max_index": 3}, 4, 3),
    "space.version": ({"version": "v2"}, "v1", "v2"),
    "space.max_width": ({"max_width": 3}, None, 3),
    "space.skeletons": ({"skeletons": ["cifar", "half"]}, (), ("cifar", "half")),
    "space.repeats": ({"repeats": [1, 2]}, (), (1, 2)),
    "space.connections": ({"connections": ["none", "shortcut"]}, (), ("none", "shortcut")),
    "agent.kind": ({"kind": "random"}, "q_learning", "random"),
    "agent.learning_rate": ({"learning_rate": 0.1}, 0.2, 0.1),
    "agent.discount": ({"discount": 0.9}, 1.0, 0.9),
    "agent.initial_q": ({"initial_q": 0.4}, 0.5, 0.4),
    "agent.replay": ({"replay": 9}, 8, 9),
    "reward.mu": ({"mu": 2.0}, 1.0, 2.0),
    "reward.rho": ({"rho": 0.0}, 8.0, 0.0),
    "reward.parameters": ({"parameters": 1.0}, 0.0, 1.0),
    "reward.latency": ({"latency": 1.0}, 0.0, 1.0),
    "reward.objective": ({"objective": "accuracy"}, "paper", "accuracy"),
    "reward.metric": ({"metric": "balanced_accuracy"}, "accuracy", "balanced_accuracy"),
    "data.holdout": ({"holdout": 0.2}, 0.3, 0.2),
    "data.images": ({"images": None}, 600, None),
    "network.filters": ({"filters": (8, 16)}, (8, 12), (8, 16)),
    "network.repeats": ({"repeats": 2}, 1, 2),
    "stopping.worse": ({"worse": 0.5}, 0.0, 0.5),
    "network.connections": ({"connections": "shortcut"}, "none", "shortcut"),
    "recipe.epochs": ({"epochs": 4}, 3, 4),
    "recipe.batch": ({"batch": 64}, 16, 64),
    "recipe.optimizer": ({"optimizer": "sgd"}, "adam", "sgd"),
    "recipe.learning_rate": ({"learning_rate": 0.1}, 0.01, 0.1),
    "recipe.decay": ({"decay": 0.1}, 0.2, 0.1),
    "recipe.decay_epochs": ({"decay_epochs": 1}, 2, 1),
    "recipe.momentum": ({"momentum": 0.8}, 0.9, 0.8),
    "recipe.weight_decay": ({"weight_decay": 0.1}, 0.0, 0.1),
    "recipe.restarts": ({"restarts": 2}, 3, 2),
    "recipe.restart_factor": ({"restart_factor": 0.5}, 0.4, 0.5),
    "recipe.crop": ({"crop": 1}, 0, 1),
    "recipe.flip": ({"flip": True}, False, True),
    "recipe.cutout": ({"cutout": 2}, 0, 2),
    "recipe.schedule": ({"schedule": "cosine"}, "step", "cosine"),
    "recipe.warmup_epochs": ({"warmup_epochs": 1}, 0, 1),
    "recipe.warmup_learning_rate": ({"warmup_learning_rate": 0.1}, 1e-05, 0.1),
    "recipe.decay_all": ({"decay_all": False}, True, False),
    "recipe.loss": ({"loss": "bce"}, "cross_entropy", "bce"),
    "recipe.label_smoothing": ({"label_smoothing": 0.1}, 0.0, 0.1),
    "recipe.mixup": ({"mixup": 0.2}, 0.0, 0.2),
    "recipe.cutmix": ({"cutmix": 1.0}, 0.0, 1.0),
    "recipe.ema": ({"ema": 0.9}, 0.0, 0.9),
    "recipe.drop_path": ({"drop_path": 0.1}, 0.0, 0.1),
    "recipe.dropout": ({"dropout": 0.1}, 0.0, 0.1),
    "recipe.clip_gradient": ({"clip_gradient": 1.0}, None, 1.0),
    "recipe.accumulate": ({"accumulate": 2}, 1, 2),
    "recipe.precision": ({"precision": "bfloat16"}, "auto", "bfloat16"),
    "recipe.images": ({"images": 99}, None, 99),
    "network.match": ({"match": "macs"}, "none", "macs"),
    "budget.seconds": ({"seconds": 9.0}, None, 9.0),
    "budget.macs": ({"macs": 10**9}, None, 10**9),
    "budget.times_plain": ({"times_plain": 9.0}, None, 9.0),
    "budget.parameters": ({"parameters": 10**9}, None, 10**9),
    "budget.latency": ({"latency": 9.0}, None, 9.0),
    "latency.measure": ({"measure": True}, False, True),
}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A search with two whole iterations and a third begun."""
    directory = tmp_path_factory.mktemp("begun")
    with Search.open(directory, tiny_settings()) as search:
        while search.iteration < 2:
            candidate = search.ask()
            search.tell(candidate, supplied(candidate))
        search.ask()
    return directory


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_changes_the_meaning_is_refused(begun, name):
    change, old, new = REFUSED[name]
    before = (begun / "journal.jsonl").read_bytes()
    with pytest.raises(SearchError) as refused:
        Search.open(begun, tiny_settings(**{name.partition(".")[0]: change}))
    message = str(refused.value)
    assert message.startswith(
        f"{name} is {new!r}, but the search in {begun} was begun with {old!r}"
    )
    assert "set it back, or begin another search under a new name" in message
    assert (begun / "journal.jsonl").read_bytes() == before
    Search.open(begun, tiny_settings()).close()  # the lock was let go


def test_the_table_of_refused_settings_is_complete():
    def names(tree, prefix=""):
        for name, value in tree.items():
            if isinstance(value, dict):
                yield from names(value, f"{prefix}{name}.")
            else:
                yield prefix + name

    rest = set(names(tiny_settings().to_dict())) - REFUSED.keys()
    harmless = {name for name in rest if name.startswith("workers.")} | {"tracking", "schedule"}
    elsewhere = {"data.name", "data.root", "data.download", "data.image_size"}
    streamed = {"data.reader", "data.loaders", "recipe.auto_augment", "recipe.random_erasing"}
    streamed |= {"recipe.augment_repeats"}
    final = {"recipe.sync_batch_norm", "recipe.compile", "network.match_repeats"}
    cosine = {"recipe.milestones", "recipe.min_learning_rate"}  # refused with another schedule
    stopping = {"stopping.certainty", "stopping.after", "stopping.spared"}  # refused without worse
    latency = {"latency.source", "latency.batch", "latency.passes"}  # refused where none is used
    costs = ("macs", "parameters", "seconds", "latency")
    trade_off = {f"reward.trade_off.{cost}" for cost in costs}  # refused in paper
    unchanged = rest - harmless - elsewhere - streamed - final - cosine - stopping - latency
    unchanged -= trade_off
    assert unchanged == {"network.skeleton", "space.stages", "budget.memory", "rungs"}


def test_how_a_latency_is_measured_stays(tmp_path):
    Search.open(tmp_path, tiny_settings(latency={"measure": True})).close()
    for name, value, old in (("batch", 8, 1), ("passes", 5, 20)):
        changed = tiny_settings(latency={"measure": True, name: value})
        with pytest.raises(SearchError, match=rf"latency.{name} is {value}.*begun with {old}"):
            Search.open(tmp_path, changed)


def older(directory, journal):
    """The journal as it was written before spaces had a version, blocks connections, and anything
    a latency.
    """

    def without(record):
        if "settings" in record:
            record["settings"]["space"] = {"max_index": record["settings"]["space"]["max_index"]}
            del record["settings"]["network"]["connections"]
            del record["settings"]["latency"], record["settings"]["budget"]["latency"]
            record["settings"]["reward"] = {"mu": 1.0, "rho": 8.0}
        return record

    with closing(Journal(directory / "journal.jsonl")) as written:
        written.append([without(record) for record in journal])


def test_a_journal_that_names_no_version_is_of_the_papers_space(uninterrupted, tmp_path):
    records = journal_of(uninterrupted)
    older(tmp_path, records[: len(records) // 2])
    assert journal_of(tmp_path)[0]["settings"]["space"] == {"max_index": 4}
    assert read_search(tmp_path).settings == tiny_settings()
    finish(tmp_path, tiny_settings())
    expected = timeless(uninterrupted)
    assert timeless(tmp_path)[1:] == expected[1:]
    with pytest.raises(SearchError, match="space.version is 'v2', but the search"):
        Search.open(tmp_path, tiny_settings(space={"version": "v2"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"space": {"version": "v2", "max_index": 7, "max_width": 2}},
        {"space": {"max_index": 4, "skeletons": ["cifar", "half"], "repeats": [1, 2]}},
        {
            "space": {
                "max_index": 3,
                "stages": [2, 3],
                "repeats": [1, 2],
                "connections": ["none", "shortcut"],
            },
            "agent": {"kind": "dyna_q"},
            "network": {"filters": [8, 16, 24], "match": "macs"},
        },
    ],
    ids=["v2", "shapes", "shapes of one cost"],
)
def test_a_search_of_another_space_goes_on_as_one(tmp_path, changes):
    settings = tiny_settings(**changes)
    finish(tmp_path / "whole", settings)
    for _ in range(100):
        if finish(tmp_path / "stopped", settings, rng=random.Random(1), most=3).finished:
            break
    assert timeless(tmp_path / "stopped") == timeless(tmp_path / "whole")
    for candidate in read_search(tmp_path / "whole").candidates:
        settings.designs.check(candidate.design)


@pytest.mark.parametrize(
    "change",
    [
        {"tracking": True},
        {"workers": {"kind": "inline", "device": "cpu"}},
        {"workers": {"kind": "local", "count": 7, "threads": 2, "timeout": 5.0, "retries": 1}},
    ],
)
def test_a_harmless_setting_may_change(begun, change):
    before = (begun / "journal.jsonl").read_bytes()
    with Search.open(begun, tiny_settings(**change)) as search:
        assert search.ask() is not None
        assert search.settings == tiny_settings(**change)
    assert (begun / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "schedule",
    [
        [[1.0, 2], [0.5, 2]],
        [[1.0, 3], [0.5, 2], [0.0, 1]],
        [[1.0, 2], [0.4, 2], [0.0, 1]],
        [[1.0, 1]],
    ],
)
def test_a_schedule_that_does_not_continue_is_refused(begun, schedule):
    with pytest.raises(
        SearchError, match=r"schedule is .* differ at iteration \d.* grow at its end"
    ):
        Search.open(begun, tiny_settings(schedule=schedule))


def test_a_finished_search_may_get_more_iterations(tmp_path):
    longer = tiny_settings(schedule=[[1.0, 2], [0.5, 2], [0.0, 3], [0.9, 1]])
    finish(tmp_path / "at once", longer)
    finish(tmp_path / "grown", tiny_settings())
    assert finish(tmp_path / "grown", tiny_settings()).finished
    assert finish(tmp_path / "grown", longer).finished
    kinds = ("proposal", "outcome")
    at_once, grown = (
        [record for record in timeless(tmp_path / name) if record["type"] in kinds]
        for name in ("at once", "grown")
    )
    assert grown == at_once
    assert read_search(tmp_path / "grown").settings == longer
    with pytest.raises(SearchError, match="schedule is"):
        Search.open(tmp_path / "grown", tiny_settings())  # and not fewer again
    assert finish(tmp_path / "grown", longer).finished


def test_a_schedule_written_otherwise_is_the_same(begun):
    same = tiny_settings(schedule=[[1.0, 1], [1.0, 1], [0.5, 2], [0.0, 1]])
    Search.open(begun, same).close()
    Search.open(begun, tiny_settings()).close()


def test_changed_images_are_refused(tmp_path, monkeypatch):
    from dataclasses import replace

    Search.open(tmp_path, tiny_settings()).close()

    def changed(*arguments):
        return replace(cached_load(*arguments), fingerprint="f" * 32)

    monkeypatch.setattr("blockqnn.search.search.load", changed)
    with pytest.raises(SearchError, match=r"images of data.name digits are not those.*f{32}"):
        Search.open(tmp_path, tiny_settings())


# The lock

HOLD = """
import sys, time
from blockqnn.storage.lock import DirectoryLock
from pathlib import Path
lock = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.fault(
    "the holder of a search is killed",
    "its lock goes with it, and the next process continues",
)
def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    finish(tmp_path, tiny_settings(), most=3)
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            message = rf"in use by process {holder.pid} on {socket.gethostname()} since 20\d\d-"
            with pytest.raises(SearchError, match=message):
                Search.open(tmp_path, tiny_settings())
            assert read_search(tmp_path).pending  # reading needs no lock
        finally:
            holder.send_signal(signal.SIGKILL)
    assert finish(tmp_path, tiny_settings()).finished


def test_a_second_search_in_the_same_process_is_refused(tmp_path):
    with (
        Search.open(tmp_path, tiny_settings()),
        pytest.raises(SearchError, match=f"process {os.getpid()} on"),
    ):
        Search.open(tmp_path, tiny_settings())
    Search.open(tmp_path, tiny_settings()).close()
