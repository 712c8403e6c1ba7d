"""The small files that later stages of a pipeline build on."""

import csv
import json

import pytest
from tiny_search import cached_load, finish, journal_of, small_disk, tiny_settings

from blockqnn.errors import SearchError
from blockqnn.search import search as search_module
from blockqnn.search.history import read_search
from blockqnn.zoo import BLOCKS
from evaluation.stages.evaluated import read_judged, write_judged
from evaluation.stages.search import read_search_summary, write_search
from flows.cli import main
from flows.runs import name_by_settings


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Digits are loaded once."""
    monkeypatch.setattr(search_module, "load", cached_load)


@pytest.fixture
def history(tmp_path):
    """A finished search of 30 candidates, some of which failed."""
    finish(tmp_path / "runs" / "tiny", tiny_settings())
    return read_search(tmp_path / "runs" / "tiny")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class TestSearch:
    def test_best_blocks_come_back(self, history, tmp_path):
        write_search(history, "tiny", tmp_path / "made" / "out")
        summary = read_search_summary(tmp_path / "made" / "out" / "best.json")
        assert (summary.search, summary.data) == ("tiny", "digits")
        assert summary.fingerprint == history.task.fingerprint
        records = journal_of(tmp_path / "runs" / "tiny")
        proposals = {r["number"]: r for r in records if r["type"] == "proposal"}
        outcomes = {r["number"]: r for r in records if r["type"] == "outcome"}
        best = {}  # reward and number by the key of the block's graph
        for number, record in outcomes.items():
            training = outcomes[record.get("same_as", number)]
            if training["outcome"]["kind"] == "trained":
                key = proposals[number]["key"]
                best[key] = max(best.get(key, (-1e9,)), (record["reward"], -number, training))
        order = sorted(best.values(), key=lambda found: found[:2], reverse=True)
        assert [b.reward for b in summary.blocks] == [reward for reward, _, _ in order]
        for block, (_, number, training) in zip(summary.blocks, order, strict=True):
            assert block.number == -number
            assert str(block.block) == proposals[-number]["code"]
            assert block.accuracy == training["outcome"]["accuracy"]
            assert (block.macs, block.parameters) == (
                training["cost"]["macs"],
                training["cost"]["parameters"],
            )

    def test_the_same_search_gives_the_same_bytes(self, history, tmp_path):
        again = tmp_path / "again" / "tiny"
        finish(again, tiny_settings())
        for found, to in ((history, "one"), (read_search(again), "other")):
            write_search(found, "tiny", tmp_path / to)
        for name in ("best.json", "iterations.csv", "front.csv"):
            one, other = (tmp_path / to / name for to in ("one", "other"))
            assert one.read_bytes() == other.read_bytes()

    def test_curve_and_metrics(self, history, tmp_path):
        write_search(history, "tiny", tmp_path)
        rewards = [r.reward for r in history.results]
        rows = rows_of(tmp_path / "iterations.csv")
        assert [row["iteration"] for row in rows] == ["1", "2", "3", "4", "5"]
        assert [row["epsilon"] for row in rows] == ["1.0", "1.0", "0.5", "0.5", "0.0"]
        for i, row in enumerate(rows):
            mine = rewards[6 * i : 6 * i + 6]
            assert float(row["mean_reward"]) == pytest.approx(sum(mine) / 6, abs=1e-3)
            assert float(row["best_reward"]) == pytest.approx(max(rewards[: 6 * i + 6]), abs=1e-3)
        metrics = json.loads((tmp_path / "metrics.json").read_text())["search"]
        best = read_search_summary(tmp_path / "best.json").blocks[0]
        assert metrics["reward"] == pytest.approx(best.reward, abs=0.01)
        assert metrics["accuracy"] == pytest.approx(best.accuracy, abs=0.01)

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (None, "No such file"),
            ("", "does not hold the best blocks"),
            ("[]", "does not hold the best blocks"),
            ('{"version": 1}', "does not hold the best blocks"),
            ('{"version": 2}', "format 2, this version reads 1"),
            (
                '{"version": 1, "search": "", "data": "", "fingerprint": "", "blocks": '
                '[{"number": 0, "block": "(1,1,9,0,0)"}]}',
                "does not hold the best blocks",
            ),
        ],
    )
    def test_what_is_no_summary_of_a_search(self, tmp_path, content, match):
        if content is not None:
            (tmp_path / "best.json").write_text(content)
        with pytest.raises(SearchError, match=match) as caught:
            read_search_summary(tmp_path / "best.json")
        assert "blockqnn search --to" in str(caught.value) and "\n" not in str(caught.value)


class TestNameBySettings:
    def test_it_names_what_results_depend_on(self):
        name = name_by_settings("pipeline", tiny_settings())
        assert name.startswith("pipeline-") and len(name) == 17
        same = [{"workers": {"count": 1}}, {"tracking": True}]
        other = [{"seed": 1}, {"recipe": {"epochs": 2}}, {"data": {"holdout": 0.2}}]
        for change in same:
            assert name_by_settings("pipeline", tiny_settings(**change)) == name
        others = {name_by_settings("pipeline", tiny_settings(**change)) for change in other}
        assert len({name, *others}) == 4

    def test_prepared_images_have_the_name_of_their_source(self, tmp_path):
        assert main(["data", "--to", str(tmp_path / "digits.npz")]) == 0
        there = {"name": "prepared", "root": str(tmp_path / "digits.npz")}
        split = {"images": 600, "holdout": 0.3}
        prepared = tiny_settings(data={**there, **split})
        assert name_by_settings("p", prepared) == name_by_settings("p", tiny_settings())


class TestCommands:
    def test_a_plan_is_spelled_out(self, tmp_path):
        to = tmp_path / "made" / "plan.json"
        changes = ["--set", "recipe=cifar-2018", "recipe.epochs=7"]
        arguments = ["--data", "cifar10", *changes, "--to", str(to)]
        assert main(["plan", *arguments]) == 0
        plan = json.loads(to.read_text())
        assert plan["recipe"]["epochs"] == 7
        assert plan["recipe"]["milestones"] == [150, 225]  # of the recipe that it names
        assert plan["seeds"] == 3 and plan["data"]["images"] is None  # defaults

    def test_a_full_disk_is_one_sentence(self, tmp_path, capsys):
        with small_disk(tmp_path / "small", 4) as place:
            (place / "full").write_bytes(b"x" * 4096)
            assert main(["plan", "--to", str(place / "plan.json")]) == 1
            assert main(["data", "--to", str(place / "digits.npz")]) == 1
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == 2
        assert all("No space left on device" in line and "--to" in line for line in errors)


def training(label, seed, accuracies):
    curve = [
        {"epoch": n, "loss": 1 / n, "train_accuracy": a, "learning_rate": 0.1, "seconds": 90.0}
        for n, a in enumerate(accuracies, start=1)
    ]
    return {"label": label, "seed": seed, "curve": curve, "seconds": 180.0, "devices": 2}


def judged(label, seed, top1, ece=2.0):
    test = {"top1": {"value": top1, "low": 0, "high": 100}, "ece": ece}
    return {"label": label, "seed": seed, "test": test, "macs": 2_500_000, "parameters": 812}


def test_trainings_and_their_evaluations(tmp_path):
    results = [training("S", 0, [50, 60]), training("S", 1, [52, 62]), training("plain", 0, [9, 8])]
    evaluations = [judged("S", 0, 90.0), judged("S", 1, 94.0, 3.0), judged("plain", 0, 80.5)]
    write_judged("run", results, evaluations, tmp_path)
    assert read_judged(tmp_path) == ("run", results, evaluations)
    s, plain = rows_of(tmp_path / "networks.csv")
    assert s == {
        "network": "S",
        "seeds": "2",
        "top1": "92.0",
        "spread": "2.83",  # of 90 and 94: the square root of 8
        "ece": "2.5",
        "MMACs": "2.5",
        "parameters": "812",
        "hours": "0.2",  # 3 minutes on 2 devices, twice
    }
    assert plain["spread"] == ""
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == {"top1": {"S": 92.0, "plain": 80.5}, "spread": {"S": 2.83, "plain": None}}
    curves = rows_of(tmp_path / "curves.csv")
    assert [(row["network"], row["seed"], row["epoch"]) for row in curves] == [
        *(("S", seed, epoch) for seed in "01" for epoch in "12"),
        ("plain", "0", "1"),
        ("plain", "0", "2"),
    ]
    assert curves[3]["train_accuracy"] == "62"


def test_a_code_as_long_as_any_space_allows(tmp_path):
    """Longer than the paper's 23 layers."""
    code = "".join(f"({n},1,3,{n - 1},0)" for n in range(1, 30)) + "(30,7,0,0,0)"
    block = {"number": 1, "reward": 1.0, "accuracy": 2.0, "macs": 3, "parameters": 4}
    blocks = [{**block, "block": code}, {**block, "block": str(BLOCKS["A"])}]
    content = {"version": 1, "search": "s", "data": "d", "fingerprint": "f", "blocks": blocks}
    (tmp_path / "best.json").write_text(json.dumps(content))
    assert str(read_search_summary(tmp_path / "best.json").blocks[0].block) == code
