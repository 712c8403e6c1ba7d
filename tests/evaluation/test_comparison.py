"""Rows of the result table, by hand."""

import json
import re
from types import SimpleNamespace

import pytest
from scipy.stats import binomtest
from tiny_run import evaluation, name_of, result, write

from blockqnn.errors import SearchError
from blockqnn.zoo import BLOCKS
from evaluation.results import compare, cost_in_words, device_hours, pareto, read_run, run_of

S = str(BLOCKS["S"])


def test_mean_and_spread_over_seeds(tmp_path):
    for seed, hits in enumerate([(80, 70, 60), (90, 70, 65), (70, 70, 70)]):
        write(tmp_path, result("S", seed, block=S), hits=hits)
    (row,) = compare(read_run(tmp_path))
    assert row.accuracies == pytest.approx((70, 75, 70))
    assert row.accuracy == pytest.approx(215 / 3)
    # deviations -5/3, 10/3, -5/3: squares add up to 150/9; over n - 1 = 2
    assert row.std == pytest.approx((150 / 9 / 2) ** 0.5)
    assert (row.seeds, row.images, row.block, row.epochs) == ((0, 1, 2), 300, S, 2)
    assert (row.nll, row.ece, row.top5, row.images_per_second) == (0.5, 2.0, (), 75.0)
    interval = binomtest(215, 300).proportion_ci(method="wilson")
    assert row.interval == pytest.approx((100 * interval.low, 100 * interval.high))


def test_one_seed_has_no_spread(tmp_path):
    (row,) = compare(read_run(write(tmp_path, result("resnet18"), hits=(80, 70, 60))))
    assert (row.std, row.accuracy) == (None, 70.0)


def test_the_best_comes_first_and_the_untested_last(tmp_path):
    write(tmp_path, result("good"), hits=(90, 90, 90))
    write(tmp_path, result("bad"), hits=(50, 50, 50))
    write(tmp_path, result("untested"))
    rows = compare(read_run(tmp_path))
    assert [row.label for row in rows] == ["good", "bad", "untested"]
    assert (rows[2].accuracy, rows[2].interval, rows[2].latency) == (None, None, None)


def test_earlier_settings_are_not_mixed_in(tmp_path):
    old = [result("S", seed, block=S, recipe={"epochs": 1}, finished=1.0) for seed in (0, 1)]
    new = [result("S", seed, block=S, finished=2.0 + seed) for seed in (0, 1)]
    write(tmp_path, *old, hits=(10, 10, 10))
    write(tmp_path, *new, hits=(90, 90, 90))
    run = read_run(tmp_path)
    (row,) = compare(run)
    assert (row.accuracies, run.superseded) == ((90.0, 90.0), 2)
    chosen = read_run(tmp_path, [name_of(content) for content in old])
    assert compare(chosen)[0].accuracies == (10.0, 10.0)


def matched(by, ratio=1.0):
    return {"matched": {"by": by, "ratio": ratio}}


@pytest.mark.parametrize(
    ("ours", "theirs", "sentence"),
    [
        ({}, {}, "These networks differ in cost"),
        (matched("macs"), matched("seconds"), "These networks differ in cost"),
        (
            matched("seconds", 1.02),
            matched("seconds", 0.98),
            r"Every network takes as long to train as block plain's, within 3 % \(.*=seconds\)\.$",
        ),
        (
            matched("macs", 1.364),
            matched("macs"),
            r"as many multiply-accumulates as .*\), but S 1\.36 times that: widths in steps of 8 ",
        ),
        (
            matched("latency"),
            {},
            r"as long for a forward pass as .*; resnet10t has the widths that were given\.$",
        ),
    ],
)
def test_it_is_said_whether_networks_cost_the_same(tmp_path, ours, theirs, sentence):
    write(tmp_path, result("S", block=S, **ours), hits=(90, 90, 90))
    write(tmp_path, result("resnet10t", **theirs), hits=(80, 80, 80))
    assert re.search(sentence, cost_in_words(compare(read_run(tmp_path))))


def test_diverged_and_unfinished_trainings_make_no_row(tmp_path):
    write(tmp_path, result("S", block=S), hits=(80, 70, 60))
    write(tmp_path, result("S", 1, block=S, outcome="diverged", curve=[]))
    (tmp_path / "trainings" / "S-everything-2").mkdir()
    (tmp_path / "trainings" / "S-everything-2" / "job.json").write_text("{}")
    run = read_run(tmp_path)
    (row,) = compare(run)
    assert (row.seeds, run.unfinished) == ((0,), 1)


def test_trainings_of_the_selection_are_no_rows_but_give_the_held_out_accuracy(tmp_path):
    write(tmp_path, result("block-1", split="train", block=S))
    write(tmp_path, result("winner", block=S), hits=(80, 70, 60))
    run = read_run(tmp_path)
    (row,) = compare(run)
    assert (row.label, row.held_out) == ("winner", 70.0)
    assert [r["label"] for r in run.selecting] == ["block-1"]


def test_hours_count_every_device():
    assert device_hours([result("a"), result("b", devices=4)]) == 0.5 + 4 * 0.5


def test_speed_is_the_median_over_seeds():
    contents = [result("S", seed, block=S) for seed in range(3)]
    judged = [evaluation(c, milliseconds=ms) for c, ms in zip(contents, (2, 9, 3), strict=True)]
    (row,) = compare(run_of("run", contents, judged))
    assert row.latency == 3
    assert [(r["batch"], r["milliseconds"]) for r in row.speed] == [(1, 3), (64, None)]
    assert row.speed[1]["reason"] == "out of memory"


def test_pareto_front_by_hand():
    def network(label, macs, accuracy):
        return SimpleNamespace(label=label, macs=macs, accuracy=accuracy)

    networks = [
        network("dear and best", 9, 95),
        network("beaten", 5, 80),
        network("cheap", 1, 70),
        network("middle", 4, 90),
        network("as dear as middle", 4, 85),
        network("as good as middle", 6, 90),
        network("untested", 2, None),
    ]
    assert [n.label for n in pareto(networks)] == ["cheap", "middle", "dear and best"]
    assert pareto([network("untested", 2, None)]) == []


def test_what_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(SearchError, match="no final trainings in .*: begin with blockqnn train"):
        read_run(tmp_path / "absent")
    (tmp_path / "trainings" / "S").mkdir(parents=True)
    (tmp_path / "trainings" / "S" / "job.json").write_text("{}")
    with pytest.raises(SearchError, match="none of the 1 trainings .* has finished"):
        read_run(tmp_path)
    path = tmp_path / "trainings" / "S" / "result.json"
    path.write_text("{")
    with pytest.raises(SearchError, match=r"result\.json is damaged"):
        read_run(tmp_path)
    path.write_text(json.dumps({"label": "S"}))
    with pytest.raises(SearchError, match=r"result\.json lacks identity, split"):
        read_run(tmp_path)
