"""Faults tried and survived: runs the tests marked `fault` and writes what came of it.

    python -m benchmarks.faults [--quick] [--to docs/results/faults.md] [PYTEST ARGUMENT...]

A row is one fault with the test that does it, for real: signals, full disks, servers that go. It
says what the last run of that test came to, and when, so that the table is never better than the
tests; those not run now (`-k`, `tests/workers/test_faults.py`) keep their row. All of them take a
quarter of an hour on two quiet cores; --quick only collects the tests and writes nothing.
"""

import argparse
import io
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from benchmarks.__main__ import commit

ROOT = Path(__file__).parents[1]
HEAD = """# Faults tried and survived

After each of these the search can be ended, no candidate is lost, none was trained to its end
twice, and the journal is that of a legal search: in sync mode the one of an undisturbed search.
Written by `python -m benchmarks.faults`.

| what is done | what happens | last tried | test |
|---|---|---|---|
"""


class Results:
    """A pytest plugin that keeps one row of the table for each fault."""

    def __init__(self) -> None:
        self.faults: dict[str, str] = {}
        self.results: dict[str, str] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what every selected test does."""
        for item in session.items:
            for mark in item.iter_markers("fault"):
                self.faults[_test(item.nodeid)] = " | ".join(map(str, mark.args))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how it ended; one of several ways to run it that fails is a failure."""
        name = _test(report.nodeid)
        if report.failed:
            self.results[name] = "FAILED"
        elif report.skipped:
            self.results.setdefault(name, "not possible here")
        elif report.when == "call":
            self.results.setdefault(name, "survived")

    def rows(self) -> dict[str, str]:
        """Lines of the table by test."""
        when = f"{time.strftime('%Y-%m-%d')}, {commit()}"
        return {
            name: f"| {self.faults[name]} | {result}, {when} | `{name}` |"
            for name, result in self.results.items()
            if name in self.faults
        }


def main() -> int:
    """Run the tests, print the table and write the page; 1 unless every fault was survived."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="only see which faults there are")
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "results" / "faults.md")
    options, more = parser.parse_known_args()
    results = Results()
    only = [] if "-m" in more else ["-m", "fault"]
    with redirect_stdout(io.StringIO()):  # in this process, as its parallel ones do not tell
        status = pytest.main([*only, "--collect-only", *more], plugins=[results])
    if options.quick or status:
        print("\n".join(f"| {fault} | `{name}` |" for name, fault in results.faults.items()))
        print(f"{len(results.faults)} faults")
        return int(bool(status))
    status = pytest.main([*only, "--numprocesses=2", *more], plugins=[results])
    rows = _rows(options.to) | results.rows()
    options.to.write_text(HEAD + "\n".join(rows[name] for name in sorted(rows)) + "\n", "utf-8")
    print(options.to.read_text("utf-8"))
    survived = sum("survived" in row for row in rows.values())
    print(f"{survived} of {len(rows)} faults survived")
    return int(bool(status))


def _test(node: str) -> str:
    return node.partition("[")[0].removeprefix("tests/")


def _rows(page: Path) -> dict[str, str]:
    """The rows of the page as it is now, by test, of tests that there still are."""
    lines = page.read_text("utf-8").splitlines() if page.exists() else []
    rows = {line.split("`")[1]: line for line in lines if line.endswith("` |")}
    return {test: row for test, row in rows.items() if _exists(*test.split("::"))}


def _exists(file: str, *names: str) -> bool:
    path = ROOT / "tests" / file
    return path.is_file() and f"def {names[-1]}(" in path.read_text("utf-8")


if __name__ == "__main__":
    sys.exit(main())
