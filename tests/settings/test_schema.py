"""params.schema.json: what an editor completes and checks params.yaml by."""

import ast
import json
import os
import subprocess
import sys
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


def test_of_two_threads_that_parse_before_python_3_11_8(schema, monkeypatch):
    parse, disturbed = ast.parse, iter([True, False, True])

    def disturbed_parse(*arguments, **options):
        if next(disturbed, False):
            raise SystemError("AST constructor recursion depth mismatch (before=81, after=77)")
        return parse(*arguments, **options)

    with monkeypatch.context() as patched:  # pytest parses too
        patched.setattr(ast, "parse", disturbed_parse)
        made = params_schema()
    assert made == schema


READ = """
import ast
from flows.search import search
from blockqnn.params import load_settings

def parse(*_, **__):
    raise SystemError("AST constructor recursion depth mismatch (before=81, after=77)")

ast.parse = parse
print(load_settings(profile="demo").mode)
"""


@pytest.mark.parametrize("run", ["", "3e3fbb1e-5b22-446c-8fa3-b4ab3cca0aa5"])
def test_settings_are_read_without_their_sources(run):
    """In the process of a flow run, say, which has imported the form too."""
    environment = {**os.environ, "PREFECT__FLOW_RUN_ID": run} if run else None
    command = [sys.executable, "-c", READ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.stdout.splitlines()[-1:], done.returncode) == (["sync"], 0), done.stderr


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
