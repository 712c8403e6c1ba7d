"""The JSON schema of params.yaml, from the settings themselves: `make schema` writes it.

An editor completes and checks params.yaml and the profiles by it, since their first line names it.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from blockqnn.settings.data import DATA_SETS, READERS
from blockqnn.settings.plan import EvaluationSettings, Plan
from blockqnn.settings.recipe import LOSSES, PRECISIONS, SCHEDULES, Recipe
from blockqnn.settings.search import Settings
from blockqnn.space.skeleton import CONNECTIONS, STEM_POOLS

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


def params_schema() -> dict[str, Any]:
    """Return the schema of a params file or a profile, in which every setting may be left out."""
    sections = {cls.__name__: cls for cls in (Settings, Plan, Recipe, EvaluationSettings)}
    definitions: dict[str, Any] = {}
    for name, cls in sections.items():
        schema = TypeAdapter(cls).json_schema()
        definitions |= schema.pop("$defs", {})
        definitions[name] = schema
    for name, schema in definitions.items():
        schema.pop("required", None)  # a profile or a plan states what differs
        for field, value in schema["properties"].items():
            if "discriminator" in value:  # which it may leave out too
                schema["properties"][field] = {"anyOf": value["oneOf"]}
            elif (name, field) in CHOICES:
                value["enum"] = CHOICES[name, field]
    recipe = definitions["Plan"]["properties"]["recipe"]
    base = {"type": "string", "description": "Name of a recipe under `recipes`."}
    based = {**definitions["Recipe"]["properties"], "base": base}
    definitions["BasedRecipe"] = {**definitions["Recipe"], "properties": based}
    recipe["anyOf"] = [base, {"$ref": "#/$defs/BasedRecipe"}]
    del recipe["$ref"]

    def each(name: str) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{name}"}}

    def texts(description: str) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string"}, "description": description}

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "BlockQNN's settings",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "search": {"$ref": "#/$defs/Settings", "description": "A search."},
            "recipes": {**each("Recipe"), "description": "Recipes, by the name that plans use."},
            "training": {**each("Plan"), "description": "Plans of final trainings, by data set."},
            "evaluation": {
                "$ref": "#/$defs/EvaluationSettings",
                "description": "How final trainings are judged, unless a plan says otherwise.",
            },
            "pipeline": {
                "type": "object",
                "additionalProperties": False,
                "description": "What the stages of dvc.yaml train.",
                "properties": {
                    "data": texts("Plans under `training` that the pipeline runs."),
                    "networks": texts("Blocks and models of the plans that it trains."),
                    "imagenet": texts("The same for `dvc repro imagenet`."),
                },
            },
            "imagenet": texts("Directory of ImageNet for `dvc repro imagenet`; empty for none."),
        },
        "$defs": dict(sorted(definitions.items())),
    }


def main() -> None:
    """Write params.schema.json into the current directory."""
    text = json.dumps(params_schema(), indent=1, ensure_ascii=False) + "\n"
    Path("params.schema.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
