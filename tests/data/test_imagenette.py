"""The ImageNet path on real photographs: ILSVRC's layout, streamed, trained, judged at two sizes.

Slow tier: BLOCKQNN_IMAGENETTE names a directory with Imagenette's train/ and val/ class folders.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = os.environ.get("BLOCKQNN_IMAGENETTE")
SETTINGS = [
    f"data.root={IMAGES}",
    "data.image_size=64",
    "data.loaders=2",
    "network.filters=[8,16,32,64]",
    "network.repeats=1",
    "recipe.epochs=2",
    "recipe.schedule=cosine",
    "recipe.milestones=[]",
    "recipe.batch=64",
    "recipe.learning_rate=0.05",
    "blocks=[plain]",
    "evaluation.larger=80",
    "evaluation.batches=[1,8]",
    "evaluation.repeats=3",
    "tracking=false",
]


def blockqnn(runs, *arguments):
    command = [sys.executable, "-m", "flows.cli", *arguments, "--runs", str(runs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.skipif(not IMAGES, reason="BLOCKQNN_IMAGENETTE does not say where Imagenette lies")
def test_imagenette_from_the_folders_to_the_test_set(tmp_path):
    blockqnn(tmp_path, "train", "--data", "imagenet", "--set", *SETTINGS)
    blockqnn(tmp_path, "evaluate", "--data", "imagenet", "--set", *SETTINGS)
    (path,) = (tmp_path / "train-imagenet" / "evaluations").iterdir()
    evaluation = json.loads(path.read_text())
    folders = [folder for folder in (Path(IMAGES) / "val").iterdir() if folder.is_dir()]
    images = sum(len(list(folder.iterdir())) for folder in folders)
    test, larger = evaluation["test"], evaluation["larger"]
    assert (test["images"], test["size"]) == (images, 64)
    assert (larger["images"], larger["size"]) == (images, 80)
    assert test["top1"]["value"] > 200 / len(folders)  # twice chance
    assert test["top5"]["value"] > test["top1"]["value"]
    assert [row["class"] for row in test["per_class"]] == sorted(folder.name for folder in folders)
