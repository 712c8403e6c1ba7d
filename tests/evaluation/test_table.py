"""The table of the best blocks, by hand."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from blockqnn.cost import Cost
from blockqnn.search.outcome import Outcome
from blockqnn.search.records import Candidate, Result
from blockqnn.zoo import BLOCKS
from evaluation.candidates.best_table import best_table, write_table

CODE = str(BLOCKS["B"])
RESULTS = [
    Result(
        Candidate(number=41, iteration=2, epsilon=0.1, block=BLOCKS["B"], key="k"),
        Outcome(kind="trained", accuracy=93.33333, seconds=12.34),
        reward=87.6543,
        cost=Cost(parameters=1_234_567, macs=45_678_901, activation_bytes=1),
        same_as=None,
        time=0.0,
    ),
    Result(
        Candidate(number=0, iteration=0, epsilon=1.0, block=BLOCKS["B"], key="k"),
        Outcome(kind="infeasible", reason="over budget"),
        reward=3.0,
        cost=Cost(parameters=999, macs=1_500, activation_bytes=1),
        same_as=None,
        time=0.0,
    ),
]


def test_rows_by_hand() -> None:
    first, second = best_table(RESULTS)
    assert first == {
        "rank": 1,
        "number": 41,
        "reward": 87.65,
        "accuracy": 93.33,
        "MMACs": 45.679,
        "parameters": 1_234_567,
        "density": 1.417,  # 17 edges, 12 nodes
        "iteration": 2,
        "epsilon": 0.1,
        "seconds": 12.3,
        "code": CODE,
    }
    assert (second["rank"], second["accuracy"], second["MMACs"]) == (2, None, 0.002)


def test_csv_reads_back(tmp_path: Path) -> None:
    rows = best_table(RESULTS)
    write_table(rows, tmp_path / "best.csv")
    with (tmp_path / "best.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(rows[0])
    assert (read[0]["reward"], read[0]["parameters"], read[0]["code"]) == ("87.65", "1234567", CODE)
    assert read[1]["accuracy"] == ""


def test_markdown(tmp_path: Path) -> None:
    write_table(best_table(RESULTS), tmp_path / "best.md")
    assert (tmp_path / "best.md").read_text(encoding="utf-8") == (
        "| rank | number | reward | accuracy | MMACs | parameters | density | iteration | epsilon "
        "| seconds | code |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n"
        f"| 1 | 41 | 87.65 | 93.33 | 45.679 | 1,234,567 | 1.417 | 2 | 0.10 | 12.3 | `{CODE}` |\n"
        f"| 2 | 0 | 3.00 | - | 0.002 | 999 | 1.417 | 0 | 1.00 | 0.0 | `{CODE}` |\n"
    )


@pytest.mark.parametrize("suffix", ["csv", "md"])
def test_an_empty_table_has_its_heading(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"best.{suffix}"
    write_table([], path)
    assert path.read_text(encoding="utf-8").replace("| ", "").startswith("rank")


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"best\.xlsx: the name must end in \.csv or \.md"):
        write_table([], tmp_path / "best.xlsx")
    assert not list(tmp_path.iterdir())


def test_latency_has_a_column_where_it_was_measured(tmp_path: Path) -> None:
    first = replace(RESULTS[0], outcome=replace(RESULTS[0].outcome, latency=4.56789))
    rows = best_table([first, RESULTS[1]])
    assert [row["latency ms"] for row in rows] == [4.568, None]
    write_table(rows, tmp_path / "best.md")
    head, _, one, other = (tmp_path / "best.md").read_text().splitlines()
    place = head.split(" | ").index("latency ms")
    assert (one.split(" | ")[place], other.split(" | ")[place]) == ("4.568", "-")
    assert "latency" not in best_table(RESULTS)[0]
