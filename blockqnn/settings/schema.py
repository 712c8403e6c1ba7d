"""The JSON schema of params.yaml, from the settings themselves: `make schema` writes it.

An editor completes and checks params.yaml and the profiles by it, since their first line names it.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from blockqnn.settings.checks import Section
from blockqnn.settings.data import DATA_SETS, READERS
from blockqnn.settings.plan import EvaluationSettings, Plan
from blockqnn.settings.recipe import LOSSES, PRECISIONS, SCHEDULES, Recipe
from blockqnn.settings.search import Settings
from blockqnn.space.skeleton import CONNECTIONS, STEM_POOLS
from blockqnn.storage import write_json

CHOICES: dict[tuple[str, str], list[str | None]] = {
    ("DataSettings", "name"): [*DATA_SETS],
    ("DataSettings", "reader"): [*READERS, None],
    ("NetworkSettings", "skeleton"): [*STEM_POOLS],
    ("NetworkSettings", "connections"): [*CONNECTIONS],
    ("Recipe", "schedule"): [*SCHEDULES],
    ("Recipe", "loss"): [*LOSSES],
    ("Recipe", "precision"): [*PRECISIONS],
}
"""Values of the fields that are typed as texts, by class and field."""


@dataclass(frozen=True, kw_only=True)
class Pipeline(Section):
    """What the stages of dvc.yaml train."""

    data: tuple[str, ...]
    """Data sets whose plans under `training` the pipeline runs."""
    networks: tuple[str, ...]
    """Blocks and models of the plans that the pipeline trains beside the winner."""
    imagenet: tuple[str, ...]
    """Blocks and models of the plan imagenet that `dvc repro imagenet` trains."""


@dataclass(frozen=True, kw_only=True)
class Params(Section):
    """A params file or a profile, in which every setting may be left out."""

    search: Settings
    """Settings of a search."""
    recipes: dict[str, Recipe]
    """Recipes by the name that plans use."""
    training: dict[str, Plan]
    """Plans of final trainings by data set."""
    evaluation: EvaluationSettings
    """How final trainings are judged, unless a plan says otherwise."""
    pipeline: Pipeline
    """What the stages of dvc.yaml train."""
    imagenet: tuple[str, ...]
    """Directory of ImageNet for `dvc repro imagenet`; empty for none."""


def params_schema() -> dict[str, Any]:
    """Return the schema of `Params`."""
    params = _with_docstrings(TypeAdapter(Params).json_schema)
    definitions = params["$defs"]
    base = {"type": "string", "description": "Name of a recipe under `recipes`."}
    properties = {**definitions["Recipe"]["properties"], "base": base}
    definitions["BasedRecipe"] = {**definitions["Recipe"], "properties": properties}
    definitions["Plan"]["properties"]["recipe"] = {"anyOf": [base, {"$ref": "#/$defs/BasedRecipe"}]}
    for name, schema in [("", params), *definitions.items()]:
        schema.pop("required", None)  # a profile or a plan states what differs
        for field, value in schema["properties"].items():
            if "discriminator" in value:  # which it may leave out too
                schema["properties"][field] = {"anyOf": value["oneOf"]}
            elif (name, field) in CHOICES:
                value["enum"] = CHOICES[name, field]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **params}


def _with_docstrings(schema: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A schema that describes fields by their docstrings, for which pydantic parses the sources.

    It does so here alone: settings are read while other threads work, and before Python 3.11.8 two
    threads that parse may disturb each other (gh-106905).
    """
    plain = Section.__pydantic_config__
    Section.__pydantic_config__ = {**plain, "use_attribute_docstrings": True}
    try:
        for _ in range(10):
            with suppress(SystemError):
                return schema()
        return schema()
    finally:
        Section.__pydantic_config__ = plain


if __name__ == "__main__":
    write_json(params_schema(), Path("params.schema.json"))
