"""Plans of final training: recipes by name, the paper's numbers, refusals."""

import dataclasses
import json
from pathlib import Path

import pytest

from blockqnn.errors import SettingsError
from blockqnn.params import load_plan, plan_from_dict

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.mark.parametrize("data", ["digits", "cifar10", "cifar100", "own-images", "imagenet"])
def test_they_survive_json(data):
    plan = load_plan(PARAMS, data)
    assert plan_from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_the_papers_recipes():
    cifar = load_plan(PARAMS, "cifar10", None, {"recipe": "cifar-2018"}).recipe
    assert (cifar.epochs, cifar.batch, cifar.optimizer) == (300, 128, "momentum")
    assert (cifar.learning_rate, cifar.momentum, cifar.weight_decay) == (0.1, 0.9, 5e-4)
    assert (cifar.schedule, cifar.milestones, cifar.decay) == ("multistep", (150, 225), 0.1)
    assert (cifar.crop, cifar.flip, cifar.cutout, cifar.label_smoothing) == (4, True, 0, 0)
    imagenet = load_plan(PARAMS, "imagenet")
    recipe = imagenet.recipe
    assert (recipe.epochs, recipe.batch, recipe.optimizer) == (90, 256, "momentum")
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.1, 0.9, 1e-4)
    assert (recipe.schedule, recipe.milestones, recipe.decay) == ("multistep", (30, 60), 0.1)
    assert imagenet.data.image_size == 224
    assert (imagenet.network.filters, imagenet.network.repeats) == ((64, 128, 256, 512), 3)


@pytest.mark.parametrize(
    "recipe", ["quick", "short", "cifar-2018", "cifar-strong", "imagenet-2018", "imagenet-strong"]
)
def test_every_recipe_can_be_chosen(recipe):
    data = "imagenet" if recipe.startswith("imagenet") else "cifar10"
    plan = load_plan(PARAMS, data, None, {"recipe": recipe})
    assert plan.recipe == load_plan(PARAMS, data, None, {"recipe.base": recipe}).recipe


def test_a_recipe_by_name_with_changes():
    changes = {"recipe.epochs": 9, "recipe": "cifar-strong"}
    recipe = load_plan(PARAMS, "cifar10", None, changes).recipe
    assert (recipe.epochs, recipe.label_smoothing, recipe.schedule) == (9, 0.1, "cosine")
    recipe = load_plan(PARAMS, "digits", None, {"recipe.epochs": 9}).recipe
    assert recipe == dataclasses.replace(load_plan(PARAMS, "digits").recipe, epochs=9)


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        ("mnist", {}, "data is 'mnist': choose one of digits, cifar10"),
        ("digits", {"recipe": "fast"}, "recipe is 'fast': choose one of quick, short"),
        ("digits", {"recipe.base": ["quick"]}, "recipe is ['quick']: choose one of quick"),
        ("digits", {"recipe.epoch": 1}, "recipe.epoch is not a setting: did you mean epochs?"),
        ("digits", {"seeds": 0}, "seeds is 0: give 1 or more"),
        ("digits", {"top": -1}, "top is -1: give 0 or more"),
        ("digits", {"search": None}, "search is None: name the search"),
        ("cifar10", {"blocks": [], "compare": []}, "blocks is (): give blocks, compare"),
        ("digits", {"recipe.auto_augment": "rand-m7"}, "recipe.auto_augment is 'rand-m7': it"),
        ("imagenet", {"recipe.crop": 4}, "recipe.crop is 4: it is for images in memory"),
        ("digits", {"evaluation.larger": 16}, "evaluation.larger is 16: only data.name"),
        ("digits", {"workers.processes": 3}, "recipe.batch is 64: give a multiple of"),
        ("digits", {"checkpoint.minutes": 0}, "checkpoint.minutes is 0.0: give minutes"),
        ("digits", {"workers.devices": ["gpu"]}, "workers.devices is 'gpu': give cpu"),
    ],
)
def test_refusals(data, changes, message):
    with pytest.raises(SettingsError) as caught:
        load_plan(PARAMS, data, None, changes)
    assert message in str(caught.value)
