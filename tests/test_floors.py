"""The floors of the packages: an import that runs upwards, or in a circle, is refused."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = Path(sys.executable).with_name("lint-imports")


@pytest.fixture
def house(tmp_path):
    """A copy of the three packages and of their contracts."""
    for package in ("blockqnn", "evaluation", "flows"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(house):
    """Whether the contracts are kept, and what import-linter prints."""
    done = subprocess.run([LINT, "--no-cache"], cwd=house, capture_output=True, text=True)
    return done.returncode == 0, done.stdout + done.stderr


def plant(house, room, line):
    path = house / room
    path.write_text(f"{path.read_text()}\n\ndef planted() -> None:\n    {line}\n")


def test_every_contract_is_kept(house):
    kept, said = lint(house)
    assert kept, said
    assert "0 broken" in said


@pytest.mark.parametrize(
    ("room", "line", "broken"),
    [
        ("blockqnn/space/block.py", "import blockqnn.workers.open", "The method"),
        ("blockqnn/agents/evolution.py", "import blockqnn.data", "The method"),
        ("blockqnn/settings/plan.py", "import torch", "need no torch"),
        ("blockqnn/search/search.py", "import mlflow", "knows no Prefect, MLflow"),
        ("blockqnn/workers/local.py", "import ray", "Ray in two rooms"),
        ("blockqnn/reward.py", "import evaluation.metrics", "Flows on evaluation"),
        ("evaluation/candidates/front.py", "import evaluation.report.write", "Evaluation"),
        ("flows/runs.py", "import flows.tracking.store", "Flows"),
        ("blockqnn/data/source.py", "import blockqnn.data.read", "No circle"),
    ],
)
def test_a_planted_import_is_refused(house, room, line, broken):
    plant(house, room, line)
    kept, said = lint(house)
    assert not kept
    assert any(broken in name and "BROKEN" in name for name in said.splitlines()), said


def test_a_new_room_has_to_say_on_which_floor_it_stands(house):
    (house / "blockqnn" / "attic.py").write_text('"""A room on no floor."""\n')
    kept, said = lint(house)
    assert not kept
    assert "attic" in said


def test_folders_and_files_stay_small_enough_to_find_ones_way_in():
    rooms = [
        path for name in ("blockqnn", "evaluation", "flows") for path in (ROOT / name).rglob("*.py")
    ]
    assert not [path for path in rooms if len(path.read_text().splitlines()) > 425]
    for folder in {path.parent for path in rooms}:
        assert (folder / "__init__.py").read_text().startswith('"""'), f"{folder} has no face"
        inside = [path for path in folder.glob("[!_]*") if path.suffix == ".py" or path.is_dir()]
        assert len(inside) <= (18 if folder.name == "blockqnn" else 13), f"{folder} is too full"
