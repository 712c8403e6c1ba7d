"""What goes with accuracy is found where it was put, and nothing where there is nothing."""

import json

import numpy as np
import pytest
from tiny_search import finish, tiny_settings

from blockqnn.errors import SearchError
from blockqnn.search.history import read_search
from blockqnn.search.outcome import Outcome
from evaluation.candidates.importance import importances
from flows.cli import main


def searched(directory, accuracy, iterations=20):
    """A random search of 6 candidates an iteration, with accuracies by the text of their block."""
    rng = np.random.default_rng(0)

    def outcome(candidate):
        value = accuracy(str(candidate.block)) + rng.normal(0, 0.5)
        return Outcome(kind="trained", accuracy=float(value), seconds=1.0)

    settings = tiny_settings(
        space={"max_index": 6}, schedule=[[1.0, iterations]], agent={"kind": "random"}
    )
    finish(directory, settings, outcome)
    return read_search(directory)


def test_what_was_planted_is_found(tmp_path):
    # codes of table 1: kind 2 is maximum pooling, kind 3 average pooling; of kernel 3, since a
    # pooling of kernel 1 computes nothing
    history = searched(
        tmp_path, lambda code: 60 + 6 * code.count(",2,3,") - 3 * code.count(",3,3,")
    )
    found = importances(history)
    assert found.explained > 0.8
    first, second = found.of[:2]
    assert (first.name, first.rises) == ("maximum poolings", True)
    assert (second.name, second.rises) == ("average poolings", False)
    assert first.points > 2 * second.points > 4 * found.of[2].points


def test_where_there_is_nothing_nothing_is_explained(tmp_path):
    assert importances(searched(tmp_path, lambda code: 60.0)).explained < 0.1


def test_where_all_are_equal_there_is_nothing_to_say(tmp_path):
    settings = tiny_settings(schedule=[[1.0, 20]], agent={"kind": "random"}, space={"max_index": 6})
    finish(tmp_path, settings, lambda candidate: Outcome(kind="trained", accuracy=50.0))
    with pytest.raises(SearchError, match="networks of the search are equally accurate"):
        importances(read_search(tmp_path))


def test_too_few_to_say(tmp_path):
    with pytest.raises(SearchError, match="networks of the search were trained: what goes with"):
        importances(searched(tmp_path, lambda code: 60.0, iterations=1))


def test_the_command(tmp_path, capsys):
    searched(tmp_path / "mine", lambda code: 60 + 6 * code.count(",2,3,"))
    place = ["--runs", str(tmp_path)]
    picture = tmp_path / "importance.png"
    assert main(["importance", "mine", *place, "--to", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert "properties of their networks explain" in shown
    assert shown.index("maximum poolings") < shown.index("adds")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["importance", "mine", *place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["of"][0]["name"] == "maximum poolings"
    assert main(["importance", "mine", *place, "--to", "importance.gif"]) == 2
    assert "give a name that ends in .png or .svg" in capsys.readouterr().err
