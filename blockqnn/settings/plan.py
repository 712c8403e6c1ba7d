"""What networks are finally trained on, how, and how they are judged: one plan a data set."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from blockqnn.settings.checks import Section, check_device, positive, require
from blockqnn.settings.data import IN_MEMORY_UNUSED, DataSettings
from blockqnn.settings.network import NetworkSettings
from blockqnn.settings.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingWorkers(Section):
    """Where final trainings run."""

    devices: tuple[str, ...] = ()
    """Devices for the trainings, for example [cuda:0, cuda:1]; empty means every GPU, else the
    CPU."""
    processes: int = 1
    """Data-parallel processes of one training, each with a device of its own."""
    parallel: int | None = None
    """Trainings at one time; null means as many as there are devices for, and one on a CPU."""
    threads: int | None = None
    """CPU threads of torch in each process; null divides the cores among the processes."""

    def __post_init__(self) -> None:
        require(self.processes >= 1, "workers.processes", self.processes, "give 1 or more")
        for name in ("parallel", "threads"):
            value = getattr(self, name)
            require(
                value is None or value >= 1, f"workers.{name}", value, "give 1 or more, or null"
            )
        for device in self.devices:
            check_device("workers.devices", device)


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings(Section):
    """How often a training puts its state on disk."""

    epochs: int = 1
    """Epochs between two checkpoints."""
    minutes: float | None = 10.0
    """Minutes after which a checkpoint is written within an epoch; null writes none there."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "checkpoint.epochs", self.epochs, "give 1 or more")
        if self.minutes is not None:
            positive("checkpoint.minutes", self.minutes, "minutes")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Section):
    """How trained networks are judged."""

    batches: tuple[int, ...] = (1, 64)
    """Batch sizes at which speed is measured."""
    repeats: int = 20
    """Measurements of speed at each batch size, after a warm-up."""
    larger: int | None = None
    """Side in pixels at which the test images are judged a second time; streamed images only."""

    def __post_init__(self) -> None:
        some = len(self.batches) > 0 and all(batch >= 1 for batch in self.batches)
        require(some, "evaluation.batches", self.batches, "give at least one number >= 1")
        require(self.repeats >= 1, "evaluation.repeats", self.repeats, "give 1 or more")
        larger = self.larger
        require(larger is None or larger >= 8, "evaluation.larger", larger, "give 8 or more pixels")


@dataclass(frozen=True, kw_only=True)
class Plan(Section):
    """Everything final trainings on one data set are run with (paper section 5.1)."""

    data: DataSettings
    network: NetworkSettings
    recipe: Recipe
    seed: int = 0
    """Seed of the held-out split and of the selection; the search's own, if its blocks are
    ranked."""
    seeds: int = 3
    """Final trainings of each network, with seeds 0, 1, ..."""
    search: str | None = None
    """Name of the search whose best blocks are trained."""
    top: int = 0
    """Best blocks of the search that the selection trains and ranks; 0 makes no selection."""
    blocks: tuple[str, ...] = ()
    """Blocks trained beside the winner, by name (A, B, S, ...) or code."""
    compare: tuple[str, ...] = ()
    """timm models trained beside the blocks, by the same recipe on the same images."""
    workers: TrainingWorkers = field(default_factory=TrainingWorkers)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    tracking: bool = True
    """Write the trainings to MLflow."""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "seed", self.seed, "give 0 to 2**63 - 1")
        require(self.seeds >= 1, "seeds", self.seeds, "give 1 or more")
        require(self.top >= 0, "top", self.top, "give 0 or more")
        named = self.top == 0 or bool(self.search)
        require(named, "search", self.search, "name the search whose top blocks are to be trained")
        some = self.top > 0 or bool(self.blocks) or bool(self.compare)
        require(some, "blocks", self.blocks, "give blocks, compare, or a search and top above 0")
        streamed = self.data.streamed
        unused = ("crop", "cutout") if streamed else IN_MEMORY_UNUSED
        for name in unused:
            value = getattr(self.recipe, name)
            other = "images in memory" if streamed else "images of data.name imagenet"
            require(not value, f"recipe.{name}", value, f"it is for {other}; leave it out")
        remedy = "only data.name imagenet is tested at a larger size; give null"
        larger = self.evaluation.larger
        require(larger is None or streamed, "evaluation.larger", larger, remedy)
        whole = self.recipe.batch % (self.workers.processes * self.recipe.accumulate) == 0
        remedy = "give a multiple of workers.processes times recipe.accumulate"
        require(whole, "recipe.batch", self.recipe.batch, remedy)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in params.yaml."""
        return dataclasses.asdict(self)
