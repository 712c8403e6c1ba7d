"""params.schema.json: what an editor completes and checks params.yaml by."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from blockqnn.settings.schema import params_schema

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))]


@pytest.fixture(scope="module")
def schema():
    return json.loads((ROOT / "params.schema.json").read_text(encoding="utf-8"))


def test_the_file_is_what_the_settings_say(schema):
    assert schema == params_schema(), "run make schema"
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_params_file_names_it_and_keeps_to_it(schema, path):
    first, _, text = path.read_text(encoding="utf-8").partition("\n")
    assert (path.parent / first.rpartition("$schema=")[2]).resolve() == ROOT / "params.schema.json"
    jsonschema.validate(yaml.safe_load(text), schema)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"search": {"batchh": 3}}, "'batchh' was unexpected"),
        ({"serach": {}}, "'serach' was unexpected"),
        ({"search": {"batch": "many"}}, "'many' is not of type 'integer'"),
        ({"search": {"mode": "parallel"}}, "'parallel' is not one of"),
        ({"recipes": {"own": {"schedule": "steps"}}}, "'steps' is not one of"),
        ({"training": {"own": {"data": {"name": "cifar11"}}}}, "'cifar11' is not one of"),
        ({"search": {"agent": {"kind": "sarsa"}}}, "is not valid under any"),
        ({"training": {"own": {"recipe": {"bse": "cifar-2018"}}}}, "'bse' was unexpected"),
        ({"pipeline": {"data": "digits"}}, "'digits' is not of type 'array'"),
    ],
)
def test_what_is_misspelt_or_no_choice_is_refused(schema, tree, message):
    with pytest.raises(jsonschema.ValidationError, match=message):
        jsonschema.validate(tree, schema)


def test_every_setting_is_described(schema):
    silent = [
        f"{name}.{field}"
        for name, definition in schema["$defs"].items()
        for field, value in definition["properties"].items()
        if "description" not in value and "$ref" not in value and "anyOf" not in value
    ]
    assert set(silent) <= {f"{name}.kind" for name in schema["$defs"]}
