"""Images as a final training sees them: the same questions, in memory and read from disk."""

import threading

import pytest
import torch
from tiny_images import CPU, noisy, settings, tree

from blockqnn.data.feed import ALONE
from blockqnn.data.images import open_images
from blockqnn.params import plan_from_dict
from blockqnn.settings import DataSettings, Recipe
from blockqnn.training.final.job import prepare_job
from blockqnn.training.final.result import read_result
from blockqnn.training.final.run import train
from blockqnn.zoo import BLOCKS


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """30 training and 12 test images of three classes."""
    return tree(tmp_path_factory.mktemp("images"), noisy)


@pytest.fixture(params=["memory", "disk"])
def data(request, root):
    if request.param == "disk":
        return settings(root)
    return DataSettings(name="folder", root=str(root), image_size=16, holdout=0.2)


@pytest.mark.parametrize("everything", [False, True])
def test_facts_and_batches(data, everything):
    images = open_images(data, 0, everything)
    facts = images.facts
    assert (facts.classes, facts.in_channels, facts.image_size) == (("n01", "n02", "n10"), 3, 16)
    counts = (30, 0) if everything else (24, 6)
    assert (facts.train_images, facts.held_out_images) == counts
    assert facts.fingerprint == open_images(data, 0).facts.fingerprint
    assert all(0 < value < 1 for value in (*facts.mean, *facts.std))
    feed = images.feed(Recipe(batch=10), 7, CPU, ALONE)
    assert (feed.train_images, feed.held_out_images) == counts
    assert sum(batch.size for batch in feed.batches(0)) == counts[0]
    feed.close()
    pixels, labels = map(torch.cat, zip(*images.test_batches(CPU, None), strict=True))
    assert pixels.shape == (12, 3, 16, 16)
    assert sorted(labels.tolist()) == [0] * 4 + [1] * 4 + [2] * 4


def test_a_streamed_training_from_its_job_to_its_result(root, tmp_path):
    plan = plan_from_dict(
        {
            "data": settings(root).to_dict(),
            "network": {"filters": [4, 8], "repeats": 1},
            "recipe": {"epochs": 2, "batch": 10, "optimizer": "momentum", "learning_rate": 0.05},
            "blocks": ["residual"],
        }
    )
    job = {"label": "residual", "seed": 0, "data": "imagenet", "plan": plan}
    directory = prepare_job(tmp_path, split="train", block=BLOCKS["residual"], **job)
    train(directory, ["cpu"], 1, threading.Event())
    result = read_result(directory)
    assert (result["data"]["train_images"], result["data"]["held_out_images"]) == (24, 6)
    assert result["data"]["mean"] == [0.485, 0.456, 0.406]
    assert [entry["epoch"] for entry in result["curve"]] == [1, 2]
    assert result["accuracy"] is not None
