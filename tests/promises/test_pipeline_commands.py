"""What stands in params.yaml reaches the commands of dvc.yaml as arguments, whatever is in it.

DVC itself reads both files, writes the commands and gives them to a shell.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HOSTILE = [
    "x'; touch hacked; '",
    'x"; touch hacked; "',
    "x$(touch hacked)",
    "x`touch hacked`",
    "x'\ntouch hacked\n'",
    "x; touch hacked; #\\",
    "-x && touch hacked",
    "${search.seed} {data} $HOME *",
    "/data/my ilsvrc",
]
SETTINGS = {
    "pipeline__data": "--data",
    "pipeline__networks": "--networks",
    "pipeline__imagenet": "--networks",
    "imagenet": "--root",
}
SHELLS = {os.path.realpath(path) for name in ("sh", "bash", "zsh") if (path := shutil.which(name))}

DVC = """
import json, os, sys
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.run import cmd_run

for line in sys.stdin:
    task = json.loads(line)
    open("params.yaml", "w").write(task["params"])
    try:
        stages = [stage for stage in Repo().index.stages if task["only"] in stage.addressing]
    except DvcException as error:
        print("refused", error, file=sys.stderr)
        continue
    for stage in stages:
        for os.environ["SHELL"] in task["shells"]:
            try:
                cmd_run(stage)
            except DvcException as error:
                print(error, file=sys.stderr)
"""
STUB = """#!{python} -ISB
import json, sys
with open({calls!r}, "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
"""


class Place:
    """A directory with the pipeline, and with a blockqnn that writes down its arguments."""

    def __init__(self, path):
        self.path = path
        self.calls = path / "calls"
        self.bin = path / "bin"
        self.bin.mkdir()
        stub = self.bin / "blockqnn"
        stub.write_text(STUB.format(python=sys.executable, calls=str(self.calls)))
        stub.chmod(0o755)
        shutil.copy(ROOT / "dvc.yaml", path)
        (path / ".dvc").mkdir()
        (path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")

    def environment(self, first):
        """With the commands of a directory before others."""
        return {
            **os.environ,
            "PATH": f"{first}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.path / "cache"),
        }

    def run(self, *params, only="", stub=True):
        """What is said when DVC, given params files, runs every stage in every shell; or `only`
        those that are called so, in one shell.
        """
        shells = sorted(SHELLS) if not only else ["/bin/sh"]
        tasks = [{"params": text, "only": only, "shells": shells} for text in params]
        done = subprocess.run(
            [sys.executable, "-c", DVC],
            cwd=self.path,
            env=self.environment(self.bin if stub else Path(sys.executable).parent),
            input="".join(json.dumps(task) + "\n" for task in tasks),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert not (self.path / "hacked").exists()
        return done.stderr

    def called(self):
        """The arguments that blockqnn got, a list a call."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("place"))


def changed(**settings):
    """The text of a params file with ImageNet, `pipeline__data=[...]` changed."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["pipeline"]["networks"] = ["S"]
    for name, value in {"imagenet": ["/data/ilsvrc"], **settings}.items():
        *sections, leaf = name.split("__")
        branch = tree
        for section in sections:
            branch = branch[section]
        branch[leaf] = value
    return yaml.safe_dump(tree)


@pytest.mark.parametrize(("setting", "option"), SETTINGS.items())
def test_every_value_is_an_argument_of_its_own(place, setting, option):
    assert place.run(changed(**{setting: HOSTILE})) == ""
    calls = place.called()
    for value in HOSTILE:
        having = [call for call in calls if value in call]
        assert len(having) >= len(SHELLS), value
        assert all(call[call.index(value) - 1] == option for call in having), value
    others = [word for call in calls for word in call if word not in HOSTILE]
    assert not [word for word in others if "hacked" in word]


def test_the_data_set_of_the_search_is_in_no_command(place):
    assert place.run(*(changed(search__data={"name": value}) for value in HOSTILE[:2])) == ""
    words = [word for call in place.called() for word in call]
    assert words.count("{search}") == len(SHELLS) * 2
    assert not set(HOSTILE) & set(words)
    assert not [word for word in words if "hacked" in word]


def test_what_is_no_plain_value_is_refused_by_dvc(place):
    bad = [{"x; touch hacked;": 1}], [["x; touch hacked;"]], [[{"x; touch hacked;": 1}]]
    params = [changed(**{setting: value}) for setting in SETTINGS for value in bad]
    said = place.run(*params)
    assert said.count("refused failed to parse") == len(params), said
    assert place.called() == []


@pytest.mark.parametrize(
    ("setting", "stage", "sentence"),
    [
        ("pipeline__data", "prepare@x", "data is {value!r}: choose one of "),
        ("pipeline__networks", "train@digits-x", "networks has {value!r}: choose among winner, "),
        ("pipeline__imagenet", "imagenet-train@/data/ilsvrc-x", "networks has {value!r}: choose"),
        ("imagenet", "imagenet-prepare@x", "data.root is {value!r}"),
    ],
)
def test_the_command_ends_in_a_sentence(place, setting, stage, sentence):
    value = "x'; touch hacked; '$(touch hacked)`touch hacked`\n\"; touch hacked; \""
    said = place.run(changed(**{setting: [value]}), only=stage, stub=False)
    assert [line for line in said.splitlines() if line.startswith("blockqnn: ")], said
    assert "blockqnn: " + sentence.format(value=value) in said
    assert "Traceback" not in said
