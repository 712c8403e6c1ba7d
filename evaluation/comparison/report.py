"""A comparison of agents as comparison.md, comparison.csv and comparison.png."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from blockqnn.storage import write_atomically, write_rows
from evaluation.comparison.agents import Unit
from evaluation.comparison.picture import draw_runs
from evaluation.comparison.run import About, AgentRun
from evaluation.comparison.significance import FEWEST, holm, paired
from evaluation.report.document import Column, Document, Element, Section, Table, Text, table_of
from evaluation.report.markdown import code, markdown
from evaluation.report.picture import PNG_DPI

COLUMNS = ("agent", "seed", "counted", "evaluations", "distinct", "reward", "accuracy")
"""Columns of comparison.csv."""
COUNTED = {
    "evaluations": "Every proposal counts as an evaluation, repeats too.",
    "trainings": "Trainings are counted: a repeated proposal costs nothing, as in our searches.",
}
"""What a report says of the unit in which a budget is counted."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs of several agents with the same seeds and budget, and how to report them."""

    about: About
    runs: Sequence[AgentRun]
    unit: Unit
    checkpoints: Sequence[int]
    """Counted evaluations after which the tables show what was found."""
    against: str
    """Label of the agent with which all others are compared."""
    command: str
    """The command that makes this comparison."""
    how: str = ""
    """How the agents were used, in a sentence."""

    @property
    def labels(self) -> list[str]:
        """The labels of all agents, in order."""
        return list(dict.fromkeys(run.label for run in self.runs))

    def of(self, label: str) -> list[AgentRun]:
        """One agent's runs, sorted by seed."""
        return sorted((r for r in self.runs if r.label == label), key=lambda run: run.seed)

    def values(self, label: str, measure: str) -> NDArray[np.float64]:
        """One agent's rewards or accuracies, of shape (seeds, budget)."""
        return np.array([run.values(measure) for run in self.of(label)])


def write_comparison(comparison: Comparison, to: Path) -> Path:
    """Write comparison.md, .csv and .png into `to`; return the first one's path. Raises OSError."""
    to.mkdir(parents=True, exist_ok=True)
    about, path = comparison.about, to / "comparison.md"
    values = {label: comparison.values(label, about.measure) for label in comparison.labels}
    figure = draw_runs(values, about, comparison.unit)
    write_atomically(
        to / "comparison.png", lambda file: figure.savefig(file, format="png", dpi=PNG_DPI)
    )
    rows = [
        (run.label, run.seed, n, run.evaluations[n - 1], run.distinct[n - 1])
        + tuple(f"{sequence[n - 1]:.4f}" for sequence in (run.rewards, run.accuracies))
        for run in comparison.runs
        for n in comparison.checkpoints
    ]
    named = (dict(zip(COLUMNS, row, strict=True)) for row in rows)
    write_rows(COLUMNS, named, to / "comparison.csv")
    write_atomically(path, lambda file: file.write(_page(comparison).encode()))
    return path


def _page(comparison: Comparison) -> str:
    """The comparison in Markdown."""
    about, seeds = comparison.about, len(comparison.of(comparison.labels[0]))
    sections = [Section(f"Found, {about.measured}", [_found(comparison)])]
    if len(comparison.labels) > 1:
        tested: list[Element] = [_tested(comparison), Text(_test(seeds))]
        sections.append(Section(f"Against {comparison.against}", tested))
    if about.published:
        columns = [Column("agent", "text"), Column(f"published {about.measured}")]
        rows = [[name, f"{value:.2f}"] for name, value in about.published]
        sections.append(Section("Published", [Table(columns, rows), Text(about.publication)]))
    best = "" if about.best is None else f" The best there is: {about.best:.2f}."
    budget = len(comparison.runs[0].rewards)
    intro = (
        f"{about.text}{best} {seeds} seed{'s' * (seeds > 1)}, {budget} {comparison.unit}. "
        f"{COUNTED[comparison.unit]} {comparison.how}"
    )
    text = markdown(Document(about.title, intro, [], sections), ".")
    head, _, rest = text.partition("\n\n## ")
    picture = "![Best so far by agent, mean and 95 % interval over seeds](comparison.png)"
    return f"{head.rstrip()}\n\n{code(comparison.command)}\n\n{picture}\n\n## {rest}"


def _found(comparison: Comparison) -> Table:
    measure = comparison.about.measure
    other = "reward" if measure == "accuracy" else "accuracy"
    timed = any(run.seconds for run in comparison.runs)  # journals do not say

    def spread(name: str, measure: str, place: int) -> tuple[Column, Callable[[str], str]]:
        return Column(name), lambda label: _spread(comparison.values(label, measure)[:, place])

    def mean(value: Callable[[AgentRun], float], digits: int = 0) -> Callable[[str], str]:
        return lambda label: f"{fmean(map(value, comparison.of(label))):.{digits}f}"

    columns: list[tuple[Column | None, Callable[[str], str]]] = [
        (Column("agent", "text"), str),
        *(spread(f"at {counted}", measure, counted - 1) for counted in comparison.checkpoints),
        spread(f"{other} at the end", other, -1),
        (Column("proposals"), mean(lambda run: run.evaluations[-1])),
        (Column("distinct"), mean(lambda run: run.distinct[-1])),
        (Column("CPU s a run") if timed else None, mean(lambda run: run.seconds, digits=2)),
    ]
    return table_of(comparison.labels, columns, "Mean ± standard deviation over seeds")


def _tested(comparison: Comparison) -> Table:
    measure = comparison.about.measure
    others = [label for label in comparison.labels if label != comparison.against]
    reference = comparison.values(comparison.against, measure)
    columns = [Column(comparison.unit), Column("agent", "text"), Column("difference")]
    columns += [Column("95 % interval"), Column("p"), Column("p, Holm")]
    rows = []
    for counted in comparison.checkpoints:
        place = counted - 1
        tests = [
            paired(comparison.values(o, measure)[:, place], reference[:, place]) for o in others
        ]
        for label, test, p in zip(others, tests, holm([test.p for test in tests]), strict=True):
            known = test.low == test.low  # NaN: one seed has no interval
            interval = f"{test.low:+.3f} to {test.high:+.3f}" if known else "–"
            shown = [f"{test.mean:+.3f}", interval, _p(test.p), _p(p)]
            rows.append([str(counted), label, *shown])
    return Table(columns, rows)


def _test(seeds: int) -> str:
    few = f" With fewer than {FEWEST} seeds no difference can be significant." * (seeds < FEWEST)
    return (
        "The agent's value less the reference's, seed by seed: mean, Student's t interval, "
        f"two-sided Wilcoxon signed-rank test over {seeds} seeds, and its p adjusted by Holm's "
        f"method for the agents at one checkpoint.{few}"
    )


def _spread(values: NDArray[np.float64]) -> str:
    spread = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
