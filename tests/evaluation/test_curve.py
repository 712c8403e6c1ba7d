"""What a person reads off the learning curve."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.image import imread

from blockqnn.agents import EpsilonSchedule
from blockqnn.cost import Cost
from blockqnn.search.outcome import Outcome
from blockqnn.search.records import Candidate, Result
from blockqnn.zoo import BLOCKS
from evaluation.candidates.iterations import iterations_of
from evaluation.plots.search import draw_search

COST = Cost(parameters=1, macs=1, activation_bytes=1)


def result(number: int, iteration: int, accuracy: float | None, epsilon: float = 1.0) -> Result:
    """A trained candidate, or an infeasible one when there is no accuracy."""
    candidate = Candidate(number, iteration, epsilon, BLOCKS["A"], f"key{number % 7}")
    kind = "infeasible" if accuracy is None else "trained"
    outcome = Outcome(kind=kind, accuracy=accuracy)
    return Result(candidate, outcome, (accuracy or 10.0) - 5.0, COST, None, 0.0)


def history(results: list[Result], agent: str = "q_learning") -> Any:
    """As much of a search as its curve needs."""
    return SimpleNamespace(
        results=results,
        task=SimpleNamespace(data="digits", chance=10.0),
        settings=SimpleNamespace(agent=SimpleNamespace(kind=agent)),
    )


def search(iterations: int, batch: int, schedule: EpsilonSchedule) -> list[Result]:
    return [
        result(n, n // batch, 50 + 10 * (n % 3), schedule.at(n // batch))
        for n in range(iterations * batch)
    ]


def texts(path: Path) -> str:
    """matplotlib writes every text of a picture as a comment beside its outline."""
    parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
    comments = [e.text or "" for e in ET.parse(path, parser).iter() if not isinstance(e.tag, str)]
    return "\n".join(comments)


def test_means_by_hand_with_chance_for_what_was_not_trained() -> None:
    first, second = iterations_of(
        [result(0, 0, 80.0), result(1, 0, None), result(2, 1, 90.0, 0.5)], 10.0
    )
    assert (first.number, first.epsilon, first.accuracies) == (1, 1.0, (80.0, 10.0))
    assert (first.rewards, first.not_trained) == ((75.0, 5.0), 1)
    assert (second.number, second.epsilon, second.accuracies) == (2, 0.5, (90.0,))


def test_what_was_predicted_is_in_the_mean_and_never_the_best(tmp_path: Path) -> None:
    results = [result(n, 0, accuracy) for n, accuracy in enumerate((90.0, 60.0, None))]
    stopped = Outcome(kind="stopped", predicted=96.0, curve=({"epoch": 1, "accuracy": 20.0},))
    results.append(replace(result(3, 0, 96.0), outcome=stopped))
    (iteration,) = iterations_of(results, 10.0)
    assert iteration.accuracies == (90.0, 60.0, 10.0, 96.0)
    assert (iteration.not_trained, iteration.kinds.count("stopped")) == (1, 1)
    assert (iteration.best(iteration.accuracies), iteration.best(iteration.rewards)) == (90.0, 85.0)
    draw_search(history(results), tmp_path / "curve.svg")
    assert "1 stopped, as predicted" in texts(tmp_path / "curve.svg")
    assert "1 not trained, counted as 10 % accurate" in texts(tmp_path / "curve.svg")


def test_what_was_trained_further_is_the_best_but_not_in_the_mean(tmp_path: Path) -> None:
    results = [result(0, 0, 40.0), result(1, 0, 60.0)]
    gone_on = result(2, 1, 95.0)
    gone_on = replace(gone_on, candidate=replace(gone_on.candidate, rung=1, of=1))
    results += [gone_on, result(3, 1, 70.0)]
    alone = result(4, 2, 97.0)
    results.append(replace(alone, candidate=replace(alone.candidate, rung=2, of=2)))
    before, after, last = iterations_of(results, 10.0)
    assert before.first(before.accuracies) == [40.0, 60.0]
    assert after.first(after.accuracies) == [70.0]
    assert after.best(after.accuracies) == 95.0
    assert last.first(last.accuracies) == [97.0]  # nothing was new there
    draw_search(history(results), tmp_path / "curve.svg")
    shown = texts(tmp_path / "curve.svg")
    assert "2 trained further" in shown and "mean of first trainings" in shown


def test_late_arrivals_count_where_they_were_proposed() -> None:
    arrived = [result(2, 1, 90.0), result(0, 0, 80.0), result(3, 1, 70.0), result(1, 0, 60.0)]
    assert [i.accuracies for i in iterations_of(arrived, 10.0)] == [(80.0, 60.0), (90.0, 70.0)]


@pytest.mark.parametrize("iterations", [0, 1, 2, 178])
def test_picture_of_a_search_of_any_length(iterations: int, tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    draw_search(history(search(iterations, 4, EpsilonSchedule.paper())), path)
    image = imread(path)[..., :3]
    assert min(image.shape[:2]) > 600
    assert 0.003 < (image < 0.9).any(axis=-1).mean() < 0.6
    assert [file.name for file in tmp_path.iterdir()] == ["curve.png"]


def test_words_on_the_picture(tmp_path: Path) -> None:
    directory = tmp_path / "my $first$ search"
    directory.mkdir()
    results = [*search(6, 4, EpsilonSchedule(((1.0, 3), (0.5, 3)))), result(24, 6, None, 0.1)]
    draw_search(history(results), directory / "curve.svg")
    shown = texts(directory / "curve.svg")
    for words in (
        "my $first$ search",
        "digits   ·   25 candidates, 7 distinct blocks",
        "ε = 1",
        "ε = 0.5",
        "ε = 0.1",
        "held-out accuracy (%)",
        "reward",
        "best so far",
        "mean of the iteration",
        "1 not trained, counted as 10 % accurate",
    ):
        assert words in shown


def test_every_epsilon_of_the_paper_is_named(tmp_path: Path) -> None:
    draw_search(history(search(178, 1, EpsilonSchedule.paper())), tmp_path / "curve.svg")
    shown = texts(tmp_path / "curve.svg").splitlines()
    for epsilon in ("1", "0.9", "0.8", "0.7", "0.6", "0.5", "0.4", "0.3", "0.2", "0.1"):
        assert epsilon in [line.strip().removeprefix("ε = ") for line in shown]


def test_an_agent_without_epsilon_has_no_phases(tmp_path: Path) -> None:
    draw_search(history(search(3, 4, EpsilonSchedule.paper()), "random"), tmp_path / "curve.svg")
    assert "ε" not in texts(tmp_path / "curve.svg")


def test_a_search_in_which_nothing_trained(tmp_path: Path) -> None:
    results = [result(n, n // 2, None) for n in range(4)]
    draw_search(history(results), tmp_path / "curve.svg")
    assert "4 not trained" in texts(tmp_path / "curve.svg")


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"curve\.gif: the name must end in \.png or \.svg"):
        draw_search(history([]), tmp_path / "curve.gif")
    assert not list(tmp_path.iterdir())
