"""Which trainings a plan asks for, and the selection of the winner among a search's best blocks.

As in the paper (section 5.1), the best blocks of the search are trained and ranked on held-out
images; the winner alone is trained on everything. selection.json says who won. It holds no times,
so that it is the same whenever the same trainings are ranked.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from blockqnn.errors import SearchError, SettingsError
from blockqnn.search.history import read_search
from blockqnn.settings import Plan
from blockqnn.space import Block, Shape, design_of
from blockqnn.training.final.job import prepare_job
from blockqnn.training.final.result import TrainingResult, read_result
from blockqnn.zoo import named_design
from evaluation.stages.search import read_search_summary
from evaluation.stages.selection import SELECTION, WINNER, Contender, read_selection, winner_of
from flows.runs import search_directory

NO_BLOCK = "train without one with --set top=0"
"""Remedy for a search that has no block to train."""

Step = Literal["selection", "final", "all"]
"""Part of a plan: ranking the search's best blocks, training on everything, or both."""


@dataclass(frozen=True)
class Work:
    """The trainings of one step of a plan."""

    search: str
    """Name of the search whose blocks are ranked, empty if none are."""
    contenders: list[Contender]
    """The search's best blocks, to be trained and ranked first."""
    others: list[Path]
    """Directories of trainings on everything that wait for no ranking."""
    then_winner: bool
    """Whether the winner of the ranking is then trained on everything too."""


class PlannedTrainings:
    """The final trainings that a plan asks for, and where they lie in the run's directory."""

    def __init__(
        self, directory: Path, runs: Path, plan: Plan, data: str, winner: Path | None = None
    ) -> None:
        """Name the networks of a plan, whose label is `data`, trained in the run `directory`.

        `winner` is a selection.json that is not the run's own. Raises `SettingsError` for a block
        that is none and for a network named twice.
        """
        self.directory = directory
        self.plan = plan
        self.selection_file = winner or directory / SELECTION
        self._runs = runs
        self._prepare = partial(prepare_job, directory, data=data, plan=plan)
        self._ranks = winner is None  # else the winner is known
        self._blocks = {
            label: (block, shape) for label, block, shape in map(named_design, plan.blocks)
        }
        self.labels = [*self._blocks, *plan.compare]
        if plan.top or winner is not None:
            self.labels.insert(0, WINNER)
        if len(set(self.labels)) < len(self.labels) or len(self._blocks) < len(plan.blocks):
            raise SettingsError(
                f"blocks is {list(plan.blocks)} and compare {list(plan.compare)}: name each "
                "network once"
            )

    def chosen(self, networks: Sequence[str] | None) -> list[str]:
        """The labels in `networks`, or all for None, in the plan's order.

        Raises `SettingsError` for a network that the plan has not.
        """
        for label in networks or ():
            if label not in self.labels:
                raise SettingsError(
                    f"networks has {label!r}: choose among {', '.join(self.labels)}"
                )
        return [label for label in self.labels if not networks or label in networks]

    def work(self, step: Step, networks: Sequence[str] | None, write: bool = True) -> Work:
        """The trainings of a step, with their jobs prepared as far as they are known: written, or
        only checked.

        Raises `SettingsError` for networks that the plan has not, `SearchError` for a search or a
        selection that is not there, and OSError.
        """
        final = self.chosen(networks)
        if step == "selection":
            final = []
            if not self.plan.top:
                raise SettingsError(
                    "top is 0: a selection needs a search, and blocks of it to rank"
                )
        then_winner = step == "all" and WINNER in final and self._ranks
        if then_winner:
            final.remove(WINNER)
        ranks = then_winner or step == "selection"
        if write:  # nothing before all is checked, first the models, whose names may be none
            self._finals(reversed(final), write=False)
            if ranks:
                self._contenders(write=False)
        search, contenders = self._contenders(write) if ranks else ("", [])
        return Work(search, contenders, self._finals(final, write), then_winner)

    def results(self, step: Step, networks: Sequence[str] | None) -> dict[Path, TrainingResult]:
        """All results of a step by directory; empty while one is missing."""
        work = self.work(step, networks, write=False)
        directories = [place for each in work.contenders for place in each.directories]
        if work.then_winner:
            if not self.selection_file.exists():
                return {}
            directories += self.final(WINNER, write=False)
        directories += work.others
        results = _results(directories)
        return results if len(results) == len(set(directories)) else {}

    def finished(self, networks: Sequence[str] | None) -> dict[Path, TrainingResult]:
        """Results of the final trainings that have ended, by directory, in the plan's order.

        A winner that was never selected is passed over unless `networks` names it.
        """
        labels = self.chosen(networks)
        if not networks and WINNER in labels and not self.selection_file.exists():
            labels.remove(WINNER)
        return _results(self._finals(labels, write=False))

    def final(self, label: str, write: bool = True) -> list[Path]:
        """The directories of a network's final trainings, one a seed, prepared if they are to be
        written.

        Raises `SearchError` when it is the winner and none was selected.
        """
        network: dict[str, Any] = {"timm": label}
        if label == WINNER or label in self._blocks:
            block, shape = self._blocks.get(label) or winner_of(read_selection(self.selection_file))
            network = {"block": block, "shape": shape}
        prepare = partial(self._prepare, label=label, split="everything", write=write, **network)
        return [prepare(seed=seed) for seed in range(self.plan.seeds)]

    def known_best(self) -> list[tuple[Block, Shape]]:
        """The search's best designs, best first; none for a search that has none yet."""
        if not self.plan.top:
            return []
        try:
            return [(block, shape) for _, block, shape in self._best_blocks()[1]]
        except SearchError:
            return []

    def _finals(self, labels: Iterable[str], write: bool) -> list[Path]:
        return [directory for label in labels for directory in self.final(label, write)]

    def _contenders(self, write: bool) -> tuple[str, list[Contender]]:
        """The search's name and its best blocks, best first, with their trainings prepared if they
        are to be written.
        """
        name, best = self._best_blocks()
        seeds = range(self.plan.seed, self.plan.seed + self.plan.selection_seeds)
        found = []
        for number, block, shape in best:
            label = f"block-{design_of(block, shape).key[:6]}"
            network: dict[str, Any] = {"label": label, "block": block, "shape": shape}
            prepare = partial(self._prepare, split="train", write=write, **network)
            trainings = tuple(prepare(seed=seed) for seed in seeds)
            found.append(Contender(number, block, shape, trainings))
        return name, found

    def _best_blocks(self) -> tuple[str, list[tuple[int, Block, Shape]]]:
        """The search's name, and its best blocks with the numbers of their candidates and what was
        chosen of the shapes of their networks.
        """
        name, top = self.plan.search or "", self.plan.top
        if name.endswith(".json"):  # what `blockqnn search --to` wrote
            summary = read_search_summary(Path(name))
            if not summary.blocks:
                raise SearchError(f"{name} has no block: {NO_BLOCK}")
            return summary.search, [(b.number, b.block, b.shape) for b in summary.blocks[:top]]
        history = read_search(search_directory(self._runs, name))
        best = history.best(top)
        if not best:
            remedy = NO_BLOCK if history.finished else f"let it run on; or {NO_BLOCK}"
            raise SearchError(f"search {name}: {history.why_none()}; {remedy}")
        candidates = [result.candidate for result in best]
        return name, [(each.number, each.block, each.shape.chosen) for each in candidates]


def _results(directories: Iterable[Path]) -> dict[Path, TrainingResult]:
    """The results of those trainings that have one, by directory."""
    found = ((directory, read_result(directory)) for directory in directories)
    return {directory: result for directory, result in found if result is not None}
