"""Pareto fronts: by hand, against a look at every pair, in files, and of a search."""

import csv
import random

import pytest
from matplotlib.image import imread
from tiny_search import cached_load, finish, supplied, tiny_settings

from blockqnn.errors import SearchError
from blockqnn.search.history import read_search
from evaluation.after_search import write_pictures
from evaluation.candidates.front import (
    Point,
    front_of,
    fronts,
    on_front,
    points_of,
    read_front,
    write_front,
)


def point(number, accuracy, macs, parameters=1, latency=None):
    code = "".join(f"({index},4,0,{index - 1},0)" for index in range(1, number + 1))
    code += f"({number + 1},7,0,0,0)"
    return Point(number, accuracy, accuracy - 1, macs, parameters, latency, code)


def test_by_hand():
    items = [(3, 50), (1, 40), (2, 40), (4, 70), (4, 60), (5, 65), (1, 30)]
    assert front_of(items, lambda i: i[0], lambda i: i[1]) == [(1, 40), (3, 50), (4, 70)]
    assert front_of([], lambda i: i[0], lambda i: i[1]) == []


def test_nothing_on_a_front_is_beaten_and_everything_else_is():
    rng = random.Random(0)
    for _ in range(50):
        points = [
            point(n, rng.randint(0, 20), rng.randint(1, 20), rng.randint(1, 20), rng.randint(1, 9))
            for n in range(40)
        ]
        for name, front in fronts(points).items():

            def beaten(one, name=name, points=points):
                cost = getattr(one, name)
                return any(
                    (other.accuracy > one.accuracy and getattr(other, name) <= cost)
                    or (other.accuracy == one.accuracy and getattr(other, name) < cost)
                    for other in points
                )

            unbeaten = {(getattr(p, name), p.accuracy) for p in points if not beaten(p)}
            assert [(getattr(p, name), p.accuracy) for p in front] == sorted(unbeaten)


def test_latency_has_a_front_where_it_was_measured_of_all():
    measured = [point(0, 50, 1, latency=2.0), point(1, 60, 2, latency=1.0)]
    assert list(fronts(measured)) == ["macs", "parameters", "latency"]
    assert fronts(measured)["latency"] == [measured[1]]
    assert list(fronts([*measured, point(2, 70, 3)])) == ["macs", "parameters"]
    assert fronts([]) == {}


def test_of_equals_the_cheapest_by_the_other_costs_is_on_it():
    points = [point(0, 50, 10, 9), point(1, 50, 10, 3), point(2, 40, 4, 3)]
    assert fronts(points) == {"macs": [points[2], points[1]], "parameters": [points[1]]}


def test_what_hardly_differs_is_on_the_same_fronts_when_read(tmp_path):
    points = [
        point(0, 49.0001, 10, latency=0.2996),
        point(1, 49.0002, 20, latency=0.3001),
        point(2, 49.0003, 30, latency=0.00004),
    ]
    write_front(points, tmp_path / "front.csv")
    assert fronts(read_front(tmp_path / "front.csv")) == fronts(points)


def test_files(tmp_path):
    points = [
        point(0, 50.0, 10, 5, 2.5),
        point(1, 60.0, 20, 4, 1.5),
        point(2, 55.0, 30, 9, 9.0),
        point(3, 45.0, 5, 8, 3.0),
    ]
    write_front(points, tmp_path / "front.csv")
    assert read_front(tmp_path / "front.csv") == on_front(points) == [points[3], *points[:2]]
    with (tmp_path / "front.csv").open(newline="") as file:
        assert [row["fronts"] for row in csv.DictReader(file)] == [
            "macs",
            "macs",
            "macs parameters latency",
        ]
    assert read_front(tmp_path / "absent.csv") == []
    (tmp_path / "front.csv").write_text("number,accuracy\n1,x\n")
    with pytest.raises(SearchError, match=r"front.csv is damaged .*: write it again"):
        read_front(tmp_path / "front.csv")


def test_of_a_search(tmp_path, monkeypatch):
    monkeypatch.setattr("blockqnn.search.search.load", cached_load)
    finish(tmp_path, tiny_settings())
    history = read_search(tmp_path)
    points = points_of(history)
    assert len({p.code for p in points}) == len(points) > 5
    for p in points:
        candidate = history.candidates[p.number]
        assert (str(candidate.block), supplied(candidate).accuracy) == (p.code, p.accuracy)
    write_pictures(history, tmp_path, "tiny")
    assert read_front(tmp_path / "front.csv")[-1].accuracy == pytest.approx(
        max(p.accuracy for p in points), abs=0.001
    )
    assert imread(tmp_path / "front.png").shape[0] > 100


def test_a_search_that_trained_nothing_has_an_empty_one(tmp_path, monkeypatch):
    monkeypatch.setattr("blockqnn.search.search.load", cached_load)
    finish(tmp_path, tiny_settings(budget={"parameters": 1}))
    write_pictures(read_search(tmp_path), tmp_path, "tiny")
    assert read_front(tmp_path / "front.csv") == []
    assert not (tmp_path / "front.png").exists()
