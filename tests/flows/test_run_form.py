"""What Prefect's form asks for, and what Prefect refuses when a run is submitted."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from flows.evaluate import evaluate
from flows.search import search
from flows.train import train

ROOT = Path(__file__).parents[2]


def form(flow):
    """The schema by which Prefect's server judges a run's parameters, which the form is made of."""
    return flow.parameters.model_dump()


def refusal(flow, **parameters):
    """Why these parameters are refused, empty if they are not."""
    errors = jsonschema.Draft202012Validator(form(flow)).iter_errors(parameters)
    return "; ".join(error.message for error in errors)


@pytest.mark.parametrize("flow", [search, train, evaluate])
def test_profiles_and_plans_are_lists(flow):
    offered = form(flow)["properties"]
    profiles = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))
    assert offered["profile"]["enum"] == [*profiles, None]
    if flow is not search:
        plans = yaml.safe_load((ROOT / "params.yaml").read_text())["training"]
        assert offered["data"]["enum"] == sorted(plans)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({}, ""),
        ({"recipe": {"epochs": 3}, "batch": 8, "schedule": [[1.0, 2]]}, ""),
        ({"recipe.epochs": 3, "tracking": False}, ""),
        ({"agent": {"kind": "evolution", "population": 8}}, ""),
        ({"recipe": {"epochs": "many"}}, "'many' is not of type 'integer'"),
        ({"recipe": {"epoch": 3}}, "'epoch' was unexpected"),
        ({"mode": "quick"}, "'quick' is not one of"),
        ({"agent": {"kind": "evolve"}}, "'evolve' is not one of"),
        ({"tracking": "perhaps"}, "'perhaps' is not one of"),
    ],
)
def test_settings_are_judged_by_their_types_and_choices(overrides, said):
    refused = refusal(search, name="pets", overrides=overrides)
    assert said in refused and bool(said) == bool(refused)


def test_nothing_is_filled_in_that_nobody_gave():
    # a form sends what has a default, and false for what can only be true or false
    def settings(schema, path=""):
        for name, part in schema.get("properties", {}).items():
            yield f"{path}.{name}", part
            yield from settings(part, f"{path}.{name}")

    for flow in (search, train):
        overrides = form(flow)["properties"]["overrides"]
        assert overrides["default"] == {}
        found = dict(settings(overrides))
        assert len(found) > 30
        assert not [name for name, part in found.items() if "default" in part]
        assert not [name for name, part in found.items() if part.get("type") == "boolean"]
        explained = ("description", "properties", "anyOf")
        assert all(any(key in part for key in explained) for part in found.values())
