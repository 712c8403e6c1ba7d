"""Faults tried and survived: runs every test marked `fault` and writes what came of it.

    python -m benchmarks.faults [--quick] [--to docs/results/faults.md] [PYTEST ARGUMENT...]

A row is one fault with the test that does it, for real: signals, full disks, servers that go. The
table has what passed, failed or was skipped in this run, so that it is never better than the tests.
Takes a quarter of an hour on two cores; --quick only collects the tests and writes nothing.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import machine

ROOT = Path(__file__).parents[1]


class Table:
    """A pytest plugin that keeps a row a fault."""

    def __init__(self) -> None:
        self.rows: dict[str, list[str]] = {}
        self.seconds: dict[str, float] = {}
        self.results: dict[str, str] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what every selected test does."""
        for item in session.items:
            for mark in item.iter_markers("fault"):
                name = item.nodeid.partition("[")[0].removeprefix("tests/")
                self.rows.setdefault(name, [*map(str, mark.args)])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how it ended."""
        name = report.nodeid.partition("[")[0].removeprefix("tests/")
        self.seconds[name] = self.seconds.get(name, 0.0) + report.duration
        before = self.results.get(name)
        if report.failed or before == "failed":
            self.results[name] = "failed"
        elif report.skipped:
            self.results[name] = "not tried here"
        elif report.when == "call":
            self.results[name] = "survived"

    def lines(self) -> list[str]:
        """The table as Markdown."""
        head = ["| what is done | what happens | result | test |", "|---|---|---|---|"]
        return head + [
            f"| {done} | {happens} | {self.results.get(name, 'not tried')} | `{name}` |"
            for name, (done, happens) in sorted(self.rows.items())
        ]


def main() -> int:
    """Run the tests, print the table, write the page; 1 unless every fault was survived."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only see which faults there are")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "results" / "faults.md")
    options, more = parser.parse_known_args()
    table = Table()
    only = ["--collect-only"] if options.quick else []
    status = pytest.main([str(ROOT / "tests"), "-m", "fault", *only, *more], plugins=[table])
    lines = table.lines()
    print("\n".join(lines))
    survived = sum(result == "survived" for result in table.results.values())
    if not options.quick:
        page = [
            "# Faults tried and survived",
            "",
            "After each the search ends, no candidate is lost, none is trained to its end twice, "
            "and the journal",
            "is the one of an undisturbed search. Written by `python -m benchmarks.faults` on "
            f"{time.strftime('%Y-%m-%d')},",
            f"commit {_commit()}, {machine.describe()}, {platform.system()}.",
            "",
            *lines,
        ]
        options.to.write_text("\n".join(page) + "\n", encoding="utf-8")
    print(f"{survived} of {len(table.rows)} faults survived")
    return int(bool(status))


def _commit() -> str:
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
