"""From a search to final trainings, evaluation and report by the search's name alone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_search import finish, tiny_settings

from blockqnn.params import load_plan
from blockqnn.search.history import read_search
from blockqnn.training.final.job import read_job
from flows.cli import main
from flows.final_trainings import PlannedTrainings

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished search on folders of somebody's images."""
    place = tmp_path_factory.mktemp("own")
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 20, 20, 3), np.uint8)
    for name, of_class in zip(("cat", "dog"), images, strict=True):
        folder = place / "images" / name
        folder.mkdir(parents=True)
        for number, image in enumerate(of_class):
            Image.fromarray(image).save(folder / f"{number}.png")
    data = {"name": "folder", "root": str(place / "images"), "image_size": 16, "holdout": 0.25}
    data |= {"images": 16}
    finish(place / "runs" / "own", tiny_settings(data=data))
    return place / "runs"


def prepared(runs, *arguments):
    """The plan of the trainings that `blockqnn train` makes of these arguments, by directory."""
    quick = ["network.match=none", "network.match_repeats=[]", "seeds=1"]
    command = ["train", "--prepare", "--runs", str(runs), "--step", "final", "--networks", "plain"]
    assert main([*command, *arguments, "--set", *quick]) == 0
    return {job.parent: read_job(job.parent).plan for job in runs.glob("*/trainings/*/job.json")}


def test_the_plan_has_the_images_of_the_search(runs, monkeypatch, capsys):
    monkeypatch.chdir(CHECKOUT)
    [(directory, plan)] = prepared(runs, "--search", "own").items()
    assert directory.parents[1] == runs / "train-own"
    searched = read_search(runs / "own").settings.data
    assert plan.data.root == searched.root and plan.data.image_size == 16
    assert plan.data.holdout == 0.25
    assert plan.data.images is None  # all, where the search took a part
    assert (plan.search, plan.top) == ("own", 5)
    assert plan.network.filters == (64, 128, 256)  # of the plan own-images
    assert "plain" in capsys.readouterr().out


def test_what_is_set_comes_first(runs, monkeypatch):
    monkeypatch.chdir(CHECKOUT)
    more = ["--search", "own", "--name", "mine", "--set", "top=2", "data.image_size=24"]
    plans = prepared(runs, *more)
    [plan] = [plan for directory, plan in plans.items() if directory.parents[1].name == "mine"]
    assert (plan.top, plan.data.image_size) == (2, 24)


def test_nothing_is_written_before_all_is_checked(runs, monkeypatch, capsys):
    monkeypatch.chdir(CHECKOUT)
    common = ["--runs", str(runs), "--search", "own", "--name", "checked"]
    quick = ["network.match=none", "network.match_repeats=[]", "seeds=1"]
    wrong = ["--set", *quick, "blocks=[plain]", "compare=[resnt18]"]
    assert main(["train", "--prepare", "--step", "final", *common, *wrong]) == 2
    assert "did you mean resnet18" in capsys.readouterr().err
    assert not (runs / "checked").exists()
    changes = {"data.root": str(runs.parent / "images"), "network.match": "none"}
    plan = load_plan(data="own-images", overrides=changes | {"network.match_repeats": []})
    planned = PlannedTrainings(runs / "checked", runs, plan, "own-images")
    assert planned.finished(None) == {}  # what an evaluation asks
    assert not (runs / "checked").exists()


def test_a_search_that_is_not_there(runs, monkeypatch, capsys):
    monkeypatch.chdir(CHECKOUT)
    assert main(["train", "--search", "owm", "--runs", str(runs)]) == 1
    assert "did you mean own?" in capsys.readouterr().err


def test_the_report_finds_the_trainings_of_the_search(runs, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(CHECKOUT)
    prepared(runs, "--search", "own")
    assert main(["report", "--search", "own", "--runs", str(runs), "--to", str(tmp_path)]) == 1
    assert "runs/train-own has finished" in capsys.readouterr().err  # but it looked there
