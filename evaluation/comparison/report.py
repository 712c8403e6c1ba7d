"""A comparison of agents as comparison.md, comparison.csv and comparison.png."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from blockqnn.storage import write_atomically
from evaluation.comparison.agents import Unit
from evaluation.comparison.picture import draw_courses
from evaluation.comparison.run import About, AgentRun
from evaluation.comparison.significance import FEWEST, holm, paired
from evaluation.report.document import Column, Document, Element, Section, Table, Text
from evaluation.report.markdown import code, markdown
from evaluation.report.picture import PNG_DPI

COLUMNS = ("agent", "seed", "counted", "evaluations", "distinct", "reward", "accuracy")
COUNTED = {
    "evaluations": "Every proposal counts as an evaluation, repeats too.",
    "trainings": "Trainings are counted: a repeated proposal costs nothing, as in our searches.",
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Courses of several agents with the same seeds and budget; `against` is the reference."""

    subject: About
    courses: Sequence[AgentRun]
    unit: Unit
    checkpoints: Sequence[int]
    against: str
    command: str
    how: str = ""
    """How the agents were used, in a sentence."""

    @property
    def labels(self) -> list[str]:
        """The agents in order."""
        return list(dict.fromkeys(course.label for course in self.courses))

    def of(self, label: str) -> list[AgentRun]:
        """An agent's courses by seed."""
        found = [course for course in self.courses if course.label == label]
        return sorted(found, key=lambda course: course.seed)

    def values(self, label: str, measure: str) -> NDArray[np.float64]:
        """Shape (seeds, budget)."""
        return np.array([course.values(measure) for course in self.of(label)])


def write_comparison(comparison: Comparison, to: Path) -> Path:
    """Write all three files into `to`; returns the text's path. Raises OSError."""
    to.mkdir(parents=True, exist_ok=True)
    subject = comparison.subject
    shown = {label: comparison.values(label, subject.measure) for label in comparison.labels}
    figure = draw_courses(shown, subject, comparison.unit)
    write_atomically(
        to / "comparison.png", lambda file: figure.savefig(file, format="png", dpi=PNG_DPI)
    )
    write_atomically(to / "comparison.csv", lambda file: file.write(_csv(comparison).encode()))
    path = to / "comparison.md"
    write_atomically(path, lambda file: file.write(text_of(comparison).encode()))
    return path


def _csv(comparison: Comparison) -> str:
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(COLUMNS)
    for course in comparison.courses:
        for counted in comparison.checkpoints:
            place = counted - 1
            numbers = course.evaluations[place], course.distinct[place]
            found = course.rewards[place], course.accuracies[place]
            values = [f"{value:.4f}" for value in found]
            rows.writerow([course.label, course.seed, counted, *numbers, *values])
    return file.getvalue()


def text_of(comparison: Comparison) -> str:
    """The Markdown."""
    subject, seeds = comparison.subject, len(comparison.of(comparison.labels[0]))
    sections = [Section(f"Found, {subject.measured}", [_found(comparison)])]
    if len(comparison.labels) > 1:
        tested: list[Element] = [_tested(comparison), Text(_test(seeds))]
        sections.append(Section(f"Against {comparison.against}", tested))
    if subject.published:
        columns = [Column("agent", "text"), Column(f"published {subject.measured}")]
        rows = [[name, f"{value:.2f}"] for name, value in subject.published]
        sections.append(Section("Published", [Table(columns, rows), Text(subject.publication)]))
    best = "" if subject.best is None else f" The best there is: {subject.best:.2f}."
    budget = len(comparison.courses[0].rewards)
    about = (
        f"{subject.about}{best} {seeds} seed{'s' * (seeds > 1)}, {budget} {comparison.unit}. "
        f"{COUNTED[comparison.unit]} {comparison.how}"
    )
    text = markdown(Document(subject.title, about, [], sections), ".")
    head, _, rest = text.partition("\n\n## ")
    picture = "![Best so far by agent, mean and 95 % interval over seeds](comparison.png)"
    return f"{head.rstrip()}\n\n{code(comparison.command)}\n\n{picture}\n\n## {rest}"


def _found(comparison: Comparison) -> Table:
    subject = comparison.subject
    other = "reward" if subject.measure == "accuracy" else "accuracy"
    columns = [Column("agent", "text"), *(Column(f"at {c}") for c in comparison.checkpoints)]
    columns += [Column(f"{other} at the end"), Column("proposals"), Column("distinct")]
    timed = any(course.seconds for course in comparison.courses)  # journals do not say
    columns += [Column("CPU s a run")] * timed
    rows = []
    for label in comparison.labels:
        values, courses = comparison.values(label, subject.measure), comparison.of(label)
        others = comparison.values(label, other)
        rows.append(
            [
                label,
                *(_spread(values[:, counted - 1]) for counted in comparison.checkpoints),
                _spread(others[:, -1]),
                f"{fmean(course.evaluations[-1] for course in courses):.0f}",
                f"{fmean(course.distinct[-1] for course in courses):.0f}",
                *[f"{fmean(course.seconds for course in courses):.2f}"] * timed,
            ]
        )
    return Table(columns, rows, "Mean ± standard deviation over seeds")


def _tested(comparison: Comparison) -> Table:
    measure = comparison.subject.measure
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
            known = test.low == test.low  # of one seed nothing is
            interval = f"{test.low:+.3f} to {test.high:+.3f}" if known else "–"
            shown = [f"{test.mean:+.3f}", interval, _p(test.p), _p(p)]
            rows.append([str(counted), label, *shown])
    return Table(columns, rows)


def _test(seeds: int) -> str:
    few = (
        f" With fewer than {FEWEST} seeds no difference can be significant."
        if seeds < FEWEST
        else ""
    )
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
