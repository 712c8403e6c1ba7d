"""blockqnn evaluate: final trainings meet the test images, judged once, by the command itself."""

import csv
import json

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from tiny_trainings import Place, sentence, train_here, untouched

from blockqnn.data import load
from blockqnn.network.weights import load_weights
from blockqnn.training.final.result import read_result
from blockqnn.zoo import BLOCKS
from evaluation.stages.evaluated import read_judged
from flows.cli import main

SETTINGS = ["--set", "top=0", "search=null", "seeds=2"]
OVERRIDES = {"top": 0, "search": None, "seeds": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory, api):
    """With three trainings that ended, one of which diverged, and one that did not begin."""
    place = Place(tmp_path_factory.mktemp("evaluate"), api)
    plan = place.plan(**OVERRIDES)
    place.directories = [
        train_here(place.job("residual", plan, block=BLOCKS["residual"])),
        train_here(place.job("residual", plan, block=BLOCKS["residual"], seed=1)),
        train_here(place.job("test_resnet", plan, timm="test_resnet")),
        place.job("test_resnet", plan, timm="test_resnet", seed=1),
    ]
    path = place.directories[2] / "result.json"
    diverged = {**json.loads(path.read_text()), "outcome": "diverged", "reason": "not finite"}
    path.write_text(json.dumps(diverged | {"accuracy": None}))
    return place


@pytest.fixture(scope="module")
def judged(place):
    """The evaluations, by seed, and what was printed."""
    status, output, errors = place.call("evaluate", *SETTINGS, "--to", place.path / "out")
    assert status == 0, errors
    files = [json.loads(p.read_text()) for p in sorted(place.run.glob("evaluations/*.json"))]
    return {evaluation["seed"]: evaluation for evaluation in files}, output


def logits(place, directory):
    """Of the test images, normalised by hand as the training's result says; and their labels."""
    plan, data = place.plan(**OVERRIDES), read_result(directory)["data"]
    test = load(plan.data, plan.seed).test
    pixels = test.images.double() / 255
    mean, std = (torch.tensor(data[name]).view(1, -1, 1, 1) for name in ("mean", "std"))
    network = load_weights(directory / "weights.safetensors")[0]
    with torch.no_grad():
        return network(((pixels - mean) / std).float()), test.labels


def test_numbers_are_those_of_an_independent_count(place, judged):
    for seed in (0, 1):
        output, labels = logits(place, place.directories[seed])
        found = judged[0][seed]["test"]
        accuracy = 100 * accuracy_score(labels, output.argmax(1))
        assert found["images"] == len(labels)
        assert found["top1"]["value"] == pytest.approx(accuracy, abs=0.35)  # bfloat16 may turn one
        loss = log_loss(labels, output.double().softmax(1))
        assert found["nll"] == pytest.approx(loss, rel=0.02)
        assert found["top1"]["low"] < found["top1"]["value"] < found["top1"]["high"]


def test_an_evaluation_says_what_it_judged(place, judged):
    for seed, evaluation in judged[0].items():
        directory = place.directories[seed]
        result = read_result(directory)
        assert evaluation["id"] == directory.name
        assert evaluation["identity"] == result["identity"]
        assert (evaluation["label"], evaluation["block"]) == ("residual", str(BLOCKS["residual"]))
        assert evaluation["parameters"] == result["parameters"]
        assert [row["batch"] for row in evaluation["speed"]] == [1, 8]
    assert set(judged[0]) == {0, 1}


def test_the_table_has_mean_and_spread(judged):
    evaluations, output = judged
    scores = [evaluation["test"]["top1"]["value"] for evaluation in evaluations.values()]
    row = next(line for line in output.splitlines() if line.startswith("residual "))
    assert row.split()[1:3] == ["2", f"{sum(scores) / 2:.2f}"]
    assert row.split()[3] == f"{abs(scores[0] - scores[1]) / 2**0.5:.2f}"
    assert "diverged, nothing to judge" in output


def test_outputs_for_a_pipeline_are_frozen(place, judged):
    out = place.path / "out"
    name, results, evaluations = read_judged(out)
    assert name == "train-digits"
    assert [result["label"] for result in results] == ["residual", "residual", "test_resnet"]
    assert [evaluation["seed"] for evaluation in evaluations] == [0, 1]
    assert not any("finished" in record for record in [*results, *evaluations])
    metrics = json.loads((out / "metrics.json").read_text())
    scores = [evaluation["test"]["top1"]["value"] for evaluation in judged[0].values()]
    assert metrics["top1"]["residual"] == pytest.approx(sum(scores) / 2, abs=0.005)
    with (out / "curves.csv").open() as file:
        assert {row["network"] for row in csv.DictReader(file)} >= {"residual"}


def test_nothing_is_judged_twice_unless_settings_changed(place, judged):
    before = untouched(place.run / "evaluations")
    status, output, errors = place.call("evaluate", *SETTINGS, "--networks", "residual")
    assert status == 0, errors
    assert untouched(place.run / "evaluations") == before
    assert "of the test images" not in output
    changed = ["evaluation.batches=[2]", "workers.threads=1"]
    status, output, errors = place.call("evaluate", *SETTINGS, *changed)
    assert status == 0, errors
    assert output.count("of the test images") == 2
    for path in before:
        assert [row["batch"] for row in json.loads(path.read_text())["speed"]] == [2]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--networks", "S"], 2, "networks has 'S': choose among residual, test_resnet"),
        (["--data", "mnist"], 2, "data is 'mnist'"),
        (["--set", "evaluation.larger=64"], 2, "evaluation.larger is 64"),
    ],
)
def test_wrong_use_is_one_sentence(place, monkeypatch, capsys, arguments, status, said):
    monkeypatch.chdir(place.path)
    assert main(["evaluate", *SETTINGS, *arguments]) == status
    assert said in sentence(capsys.readouterr().err)


def test_without_a_finished_training_it_says_so(place):
    status, _, errors = place.call("evaluate", *SETTINGS, "--name", "none")
    assert status == 1
    assert "no final training of this plan has finished in runs/none" in sentence(errors)
    status, _, errors = place.call("evaluate", *SETTINGS, "--from", place.path / "nothing")
    assert status == 1
    assert "there are no trained networks below" in sentence(errors)
