"""Which trainings a plan asks for, and the selection of the winner among a search's best blocks.

As in the paper (section 5.1), the best blocks of the search are trained and ranked on held-out
images; the winner alone is trained on everything. selection.json says who won. It holds no clock,
so that it is the same whenever the same trainings are ranked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blockqnn.errors import SearchError, SettingsError
from blockqnn.search.history import read_search
from blockqnn.settings import Plan
from blockqnn.space import LONGEST, Block
from blockqnn.training.final.job import Split, prepare_job
from blockqnn.training.final.result import TrainingResult, read_result
from blockqnn.zoo import named_block
from evaluation.stages.search import read_search_summary
from evaluation.stages.selection import SELECTION, WINNER, Contender, read_selection
from flows.runs import search_directory

NO_BLOCK = "train without one with --set top=0"
Step = Literal["selection", "final", "all"]


@dataclass(frozen=True)
class Work:
    """What one step of a plan trains: the best blocks of the search of that name, others on
    everything, and whether the winner among the former is then trained on everything too.
    """

    search: str
    contenders: list[Contender]
    others: list[Path]
    then_winner: bool


class PlannedTrainings:
    """The networks of a plan; their trainings' directories lie under that of the run."""

    def __init__(
        self, directory: Path, runs: Path, plan: Plan, data: str, winner: Path | None = None
    ) -> None:
        """`data` is the plan's label; `winner` a selection.json that is not the run's own.

        Raises `SettingsError` for blocks that are none and labels that two networks share.
        """
        self.directory = directory
        self.plan = plan
        self._runs = runs
        self._data = data
        self._given = winner
        self._blocks = dict(named_block(name) for name in plan.blocks)
        self.labels = [*self._blocks, *plan.compare]
        if plan.top or winner is not None:
            self.labels.insert(0, WINNER)
        twice = {label for label in self.labels if self.labels.count(label) > 1}
        if twice or len(self._blocks) < len(plan.blocks):
            raise SettingsError(
                f"blocks is {list(plan.blocks)} and compare {list(plan.compare)}: name each "
                "network once"
            )

    def chosen(self, networks: Sequence[str] | None) -> list[str]:
        """The labels asked for; all of them for None. Raises `SettingsError` for an unknown one."""
        for label in networks or ():
            if label not in self.labels:
                raise SettingsError(
                    f"networks has {label!r}: choose among {', '.join(self.labels)}"
                )
        return [label for label in self.labels if not networks or label in networks]

    def work(self, step: Step, networks: Sequence[str] | None) -> Work:
        """What a step asks for, with its jobs prepared as far as they are known.

        Raises `SettingsError` for networks that the plan has not, `SearchError` for a search or a
        selection that is not there, and OSError.
        """
        chosen = self.chosen(networks)
        if step == "selection" and not self.plan.top:
            raise SettingsError("top is 0: a selection needs a search, and blocks of it to rank")
        ranks = step == "selection" or (step == "all" and WINNER in chosen and self._given is None)
        search, contenders = self._contenders() if ranks else ("", [])
        now = [] if step == "selection" else [c for c in chosen if not (ranks and c == WINNER)]
        return Work(
            search=search,
            contenders=contenders,
            others=[directory for label in now for directory in self.final(label)],
            then_winner=ranks and step == "all",
        )

    def results(self, step: Step, networks: Sequence[str] | None) -> dict[Path, TrainingResult]:
        """All results of a step by directory; empty while one is missing."""
        work = self.work(step, networks)
        directories = [contender.directory for contender in work.contenders]
        if work.then_winner:
            if not self.selection_file.exists():
                return {}
            directories += self.final(WINNER)
        found = {directory: read_result(directory) for directory in [*directories, *work.others]}
        results = {directory: result for directory, result in found.items() if result is not None}
        return results if len(results) == len(found) else {}

    def finished(self, networks: Sequence[str] | None) -> dict[Path, TrainingResult]:
        """Results of the final trainings that have ended, by directory, in the plan's order.

        A winner that was never selected is passed over unless `networks` names it.
        """
        labels = self.chosen(networks)
        if not networks and WINNER in labels and not self.selection_file.exists():
            labels.remove(WINNER)
        directories = [directory for label in labels for directory in self.final(label)]
        found = {directory: read_result(directory) for directory in directories}
        return {directory: result for directory, result in found.items() if result is not None}

    def final(self, label: str) -> list[Path]:
        """The directories of a network's final trainings, one a seed, prepared.

        Raises `SearchError` when it is the winner and none was selected.
        """
        block = self._blocks.get(label)
        if label == WINNER:
            block = self.winner()
        timm = label if block is None else None
        return [
            self._prepare(label, block, "everything", timm, seed) for seed in range(self.plan.seeds)
        ]

    def winner(self) -> Block:
        """The block that selection.json names."""
        return Block.parse(read_selection(self.selection_file)["winner"]["block"], LONGEST)

    @property
    def selection_file(self) -> Path:
        """Where the selection stands."""
        return self._given or self.directory / SELECTION

    def _contenders(self) -> tuple[str, list[Contender]]:
        """The search's name and its best blocks, best first, with their trainings prepared."""
        name, blocks = self._searched()
        return name, [
            Contender(number, block, self._prepare(f"block-{block.key[:6]}", block, "train"))
            for number, block in blocks
        ]

    def _searched(self) -> tuple[str, list[tuple[int, Block]]]:
        name, top = self.plan.search or "", self.plan.top
        if name.endswith(".json"):  # what `blockqnn search --to` wrote
            frozen = read_search_summary(Path(name))
            if not frozen.blocks:
                raise SearchError(f"{name} has no block: {NO_BLOCK}")
            return frozen.search, [(best.number, best.block) for best in frozen.blocks[:top]]
        history = read_search(search_directory(self._runs, name))
        best = history.best(top)
        if not best:
            remedy = NO_BLOCK if history.finished else f"let it run on; or {NO_BLOCK}"
            raise SearchError(f"search {name}: {history.why_none()}; {remedy}")
        return name, [(result.candidate.number, result.candidate.block) for result in best]

    def _prepare(
        self, label: str, block: Block | None, split: Split, timm: str | None = None, seed: int = -1
    ) -> Path:
        return prepare_job(
            self.directory,
            label=label,
            block=block,
            timm=timm,
            split=split,
            seed=self.plan.seed if seed < 0 else seed,
            data=self._data,
            plan=self.plan,
        )
