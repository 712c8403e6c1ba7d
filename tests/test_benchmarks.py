"""Every benchmark runs, and ends with its comparison; what it measures is for `make bench`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import SCALE, SCRIPTS

ROOT = Path(__file__).parents[1]
COMPARISON = {
    "training_speed": r"ratio \d+\.\d\d \(aim 4\)",
    "separable_speed": r"ratio \d+\.\d\d of torch with 5x5 in float32, \d+\.\d\d of torch",
    "cost_model": r"latency by multiply-accumulates: median error \d+\.\d %",
    "agent_speed": r"ratio \d+\.\d over .*; same blocks, same values",
    "stack_overhead": r"share -?\d+\.\d\d% of a ten-second candidate",
    "resume_time": r"opened in \d+\.\d\d s .* ratio \d+\.\d",
    "candidates_per_hour": r"ratio \d+\.\d\d of a process a core",
    "estimates": r"search: time \d+\.\d\d, memory .*; train: time \d+\.\d\d, .*aim 0\.67 to 1\.5",
    "async_search": r"utilisation async \d+\.\d\d % \(aim 97\), sync \d+\.\d\d %",
    "million_candidates": r"ratio \d+\.\d\d at random and \d+\.\d\d greedily of the CPU time",
    "flow_limits": r"the flow carries \d+ candidates a second, the mirror \d+\.\d distinct",
    "fast_search": r"seed 0: every block \d+ of 354, paper-small \d+ of \d+",
    # 12 accuracies from 80 to 90: the five worst end 7 steps of 10 / 11 below the best
    "proxies": r"tau 1 and -1, the best of five 0\.00 and 6\.36 below the best",
    "recipe_parts": r"recipe parts: .*; \d+\.\d % of digits",
    # 1, 1.5 and 1 by seed: their mean, and Student's t for three of them
    "winner": r"ahead of random search by \+1\.17 \(\+0\.45 to \+1\.88\)",
    "surrogate_comparison": r"tau of Gaussian process 0\.\d+ from \d+ curves \(best .*\), fitted",
}


FOLDERS = {
    "speed": SCRIPTS,
    "scale": SCALE,
    "studies": ("fast_search", "proxies", "recipe_parts", "surrogate_comparison", "winner"),
}


LONG = ("candidates_per_hour", "estimates")
"""Benchmarks of half a minute and more even when quick."""


@pytest.mark.parametrize(
    ("folder", "script"),
    [
        pytest.param(folder, script, marks=[pytest.mark.slow] if script in LONG else [])
        for folder, scripts in FOLDERS.items()
        for script in scripts
    ],
)
def test_a_benchmark_prints_its_comparison(folder: str, script: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{folder}.{script}", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.search(COMPARISON[script], last), done.stdout
