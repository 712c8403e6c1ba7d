"""What the README prints for people who write Python runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_search import tiny_settings

from blockqnn.search import Outcome, Search
from blockqnn.search.history import read_search

CHECKOUT = Path(__file__).parents[1]


def test_its_python_runs_as_printed(tmp_path):
    text = (CHECKOUT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for name in ("params.yaml", "profiles"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    for number, block in enumerate(blocks):
        (tmp_path / f"{number}.py").write_text(block)
        command = [sys.executable, f"{number}.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert read_search(tmp_path / "runs" / "mine").finished
    assert "Result(candidate=Candidate(number=" in done.stdout


def test_its_links_lead_somewhere():
    pages = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *CHECKOUT.glob("docs/**/*.md")]
    for page in pages:
        for target in re.findall(r"(?:\]\(|src=\")([^)\"#:]+)[)\"#]", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: 97.0, r"the outcome is 97\.0: give Outcome\(kind=\"trained\", accuracy=\.\.\.\)"),
        (lambda: Outcome(kind="trained", accuracy=0.97), "accuracy is 0.97, .* give percent, 97"),
    ],
)
def test_a_slip_in_percent_is_met_with_a_sentence(tmp_path, given, message):
    with Search.open(tmp_path / "mine", tiny_settings()) as search:
        candidate = search.ask()
        with pytest.raises(ValueError, match=message):
            search.tell(candidate, given())
        search.tell(candidate, Outcome(kind="trained", accuracy=97.0))
