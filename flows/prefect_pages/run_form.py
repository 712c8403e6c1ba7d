"""What Prefect's form asks for a run of a flow: settings with their types, choices and words.

They come from the settings' own classes. Prefect refuses values of another type, and names that a
section has not, when a run is submitted; what else is wrong is a sentence at the run's beginning.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from blockqnn.errors import UserError
from blockqnn.params import plans, profiles
from blockqnn.settings.schema import params_schema

Schema = dict[str, Any]

KEPT = ("type", "description", "enum", "const", "additionalProperties", "minItems", "maxItems")
"""What the form keeps of the schema of a setting."""


class _Shown:
    """A parameter whose schema is not that of its type."""

    def __init__(self, schema: Callable[[], Schema]) -> None:
        self._schema = schema

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> Schema:
        # the process of a run imports its flow too, and shows nobody a form
        return {} if "PREFECT__FLOW_RUN_ID" in os.environ else self._schema()


def settings_form(name: str) -> Schema:
    """The schema of single settings: sections of the class of that name, or dotted names.

    All may be left out, and nothing is filled in: what is not given is as the profile has it.
    """
    definitions = params_schema()["$defs"]

    def shown(schema: Schema, title: str) -> Schema:
        """A schema without references and defaults, which the form would send as if they were
        meant; so it does with what can only be true or false, and forgets what is constant.
        """
        if (reference := schema.get("$ref")) is not None:
            schema = {**definitions[reference.rpartition("/")[2]], **schema}
        kinds = [shown(each, title) for each in schema.get("anyOf", ())]
        if kinds and all("properties" in kind for kind in kinds):  # agents, say, by their kind
            return _all_kinds(kinds, title)
        own = {key: schema[key] for key in KEPT if key in schema} | {"title": title}
        if kinds:
            for kind in kinds:
                del kind["title"]  # the form calls them by their types then
            own["anyOf"] = kinds
        if schema.get("type") == "boolean":
            own = {"title": title, "description": schema["description"], "enum": [True, False]}
        if "properties" in schema:
            parts = schema["properties"].items()
            own["properties"] = {part: shown(value, part) for part, value in parts}
        if "items" in schema:
            own["items"] = shown(schema["items"], title)
        if "prefixItems" in schema:
            own["prefixItems"] = [shown(each, title) for each in schema["prefixItems"]]
        return own

    return {**shown(definitions[name], "overrides"), "additionalProperties": True}


def _all_kinds(kinds: list[Schema], title: str) -> Schema:
    """One section that has the settings of all its kinds, which the form lets one choose."""
    names = [kind["properties"]["kind"]["const"] for kind in kinds]
    parts: Schema = {"kind": {"title": "kind", "description": "Which kind it is.", "enum": names}}
    for kind in kinds:
        parts |= {part: each for part, each in kind["properties"].items() if part not in parts}
    return {
        "title": title,
        "type": "object",
        "properties": parts,
        "additionalProperties": False,
    }


def _plan_form() -> Schema:
    """The schema of a plan's name: any text where there is no params file to be read."""
    try:
        return {"type": "string", "enum": plans(PARAMS)}
    except UserError:
        return {"type": "string"}


PARAMS = Path("params.yaml")
"""The params file whose profiles and plans the form offers: that of the deployment's directory."""

Profile = Annotated[str | None, _Shown(lambda: {"enum": [*profiles(PARAMS), None]})]
"""A profile by its name."""

PlanName = Annotated[str, _Shown(_plan_form)]
"""A plan of final trainings by its name."""

SearchSettings = Annotated[dict[str, Any] | None, _Shown(lambda: settings_form("Settings"))]
"""Settings of a search laid over the profile's: sections, or dotted names."""

PlanSettings = Annotated[dict[str, Any] | None, _Shown(lambda: settings_form("Plan"))]
"""Settings of a plan laid over the profile's: sections, or dotted names."""
