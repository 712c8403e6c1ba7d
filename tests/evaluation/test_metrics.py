"""Accuracy, intervals, likelihood and calibration, against scikit-learn, SciPy and by hand."""

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score

from evaluation.metrics import Tally, wilson


def measured(logits, labels, classes=None):
    count = len(logits[0])
    tally = Tally(count)
    tally.add(torch.tensor(logits), torch.tensor(labels))
    return tally.result(classes or [f"class {i}" for i in range(count)])


def random_outputs(images=500, classes=10, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes)) + 2.0 * np.eye(classes)[labels]
    return logits, labels


@pytest.mark.parametrize(("hits", "total"), [(0, 7), (7, 7), (1, 10), (437, 540), (9412, 10000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_wilson_is_scipys(hits, total, confidence):
    interval = binomtest(hits, total).proportion_ci(confidence, method="wilson")
    expected = (100 * interval.low, 100 * interval.high)
    assert wilson(hits, total, confidence) == pytest.approx(expected, abs=1e-9)


def test_wilson_by_hand():
    # Half of 4: 1/2 -+ 1.96 / (1 + 0.96) * sqrt(1/16 + 0.24/4), z^2/4 = 0.9604
    assert wilson(2, 4) == pytest.approx((15.004, 84.996), abs=1e-3)


@pytest.mark.parametrize(("hits", "total"), [(-1, 4), (5, 4), (0, 0)])
def test_wilson_refuses_impossible_counts(hits, total):
    with pytest.raises(ValueError, match=f"{hits} hits in {total}"):
        wilson(hits, total)


def test_everything_as_scikit_learn_has_it():
    logits, labels = random_outputs()
    found = measured(logits, labels)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predicted = logits.argmax(axis=1)
    assert found["images"] == 500
    assert found["top1"]["value"] == pytest.approx(100 * accuracy_score(labels, predicted))
    assert found["top5"]["value"] == pytest.approx(100 * top_k_accuracy_score(labels, logits, k=5))
    assert found["nll"] == pytest.approx(log_loss(labels, probabilities))
    matrix = confusion_matrix(labels, predicted)
    assert found["confusion"] == matrix.tolist()
    recalls = 100 * matrix.diagonal() / matrix.sum(axis=1)
    assert [row["accuracy"] for row in found["per_class"]] == pytest.approx(recalls.tolist())
    assert [row["images"] for row in found["per_class"]] == matrix.sum(axis=1).tolist()


def test_calibration_by_hand():
    # Confidences 0.9 and 0.65: of bins 1/15 wide, (13/15, 14/15] and (9/15, 10/15]
    def row(p):
        return [math.log(p), math.log(1 - p)]

    found = measured([row(0.9), row(0.9), row(0.65), row(0.65)], [0, 1, 0, 0])
    filled = {i: b for i, b in enumerate(found["calibration"]) if b["images"]}
    assert list(filled) == [9, 13]
    assert filled[13]["confidence"] == pytest.approx(90)
    assert filled[13]["accuracy"] == pytest.approx(50)
    assert filled[9]["accuracy"] == pytest.approx(100)
    # half the images 40 points over-confident, half 35 points under
    assert found["ece"] == pytest.approx(37.5)
    assert found["calibration"][0]["accuracy"] is None


def test_calibration_against_a_plain_loop():
    logits, labels = random_outputs(seed=3)
    probabilities = torch.tensor(logits).softmax(dim=1).numpy()
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert measured(logits, labels)["ece"] == pytest.approx(100 * error)


def test_a_certain_and_right_network_is_perfect():
    found = measured([[1000.0, 0.0, 0.0], [0.0, 0.0, 1000.0]], [0, 2])
    assert (found["top1"]["value"], found["nll"], found["ece"]) == (100.0, 0.0, 0.0)
    assert found["top1"]["high"] == 100.0
    assert found["per_class"][1] == {
        "class": "class 1",
        "images": 0,
        "accuracy": None,
        "low": None,
        "high": None,
    }


def test_batches_add_up_to_the_whole():
    logits, labels = random_outputs(seed=1)
    tally = Tally(10)
    for start in range(0, 500, 64):
        tally.add(logits[start : start + 64], labels[start : start + 64])
    names = [f"class {i}" for i in range(10)]
    whole = measured(logits, labels)
    streamed = tally.result(names)
    for key in ("nll", "ece"):
        assert streamed.pop(key) == pytest.approx(whole.pop(key))
    bins, others = streamed.pop("calibration"), whole.pop("calibration")
    assert [b["confidence"] for b in bins] == pytest.approx([b["confidence"] for b in others])
    assert streamed == whole


def test_of_equal_logits_the_first_class_wins():
    found = measured([[1.0] * 7] * 7, list(range(7)))
    assert found["top1"]["value"] == pytest.approx(100 / 7)
    assert found["top5"]["value"] == pytest.approx(500 / 7)
    assert [row[0] for row in found["confusion"]] == [1] * 7


@pytest.mark.parametrize(("classes", "given"), [(2, False), (5, False), (6, True)])
def test_top5_is_given_from_six_classes_on(classes, given):
    logits, labels = random_outputs(20, classes)
    assert (measured(logits, labels)["top5"] is not None) is given


def test_the_result_is_plain_json():
    logits, labels = random_outputs(50)
    found = measured(logits, labels)
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_cannot_be_counted_is_refused():
    tally = Tally(3)
    with pytest.raises(ValueError, match="no images"):
        tally.result(["a", "b", "c"])
    with pytest.raises(ValueError, match=r"logits are \(2, 4\): give \(N, 3\)"):
        tally.add(torch.zeros(2, 4), torch.zeros(2))
    with pytest.raises(ValueError, match="labels are"):
        tally.add(torch.zeros(2, 3), torch.zeros(3))
    tally.add(torch.tensor([[0.0, float("nan"), 1.0], [1.0, 0.0, 0.0]]), torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="outputs of 1 of 2 images are not finite"):
        tally.result(["a", "b", "c"])


@pytest.mark.gpu
def test_a_gpu_counts_the_same():
    logits, labels = random_outputs()
    tally = Tally(10)
    tally.add(torch.tensor(logits, device="cuda"), torch.tensor(labels, device="cuda"))
    found = tally.result([f"class {i}" for i in range(10)])
    whole = measured(logits, labels)
    assert found["confusion"] == whole["confusion"]
    assert found["ece"] == pytest.approx(whole["ece"])
