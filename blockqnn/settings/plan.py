"""What networks are finally trained on, how, and how they are judged: one plan a data set."""

from dataclasses import dataclass, field

from blockqnn.settings.checks import Section
from blockqnn.settings.data import IN_MEMORY_UNUSED, STREAMED_UNUSED, DataSettings
from blockqnn.settings.network import NetworkSettings
from blockqnn.settings.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingWorkers(Section, section="workers"):
    """Where final trainings run."""

    devices: tuple[str, ...] = ()
    """Devices for the trainings, such as [cuda:0, cuda:1]; empty means every GPU, else the CPU."""
    processes: int = 1
    """Data-parallel processes of one training, each with a device of its own."""
    parallel: int | None = None
    """Trainings at one time; null means as many as there are devices for, and one on a CPU."""
    threads: int | None = None
    """CPU threads of torch in each process; null divides the cores among the processes."""

    def __post_init__(self) -> None:
        self.require_least(1, "processes", "parallel", "threads")
        self.require_devices("devices", *self.devices)


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings(Section, section="checkpoint"):
    """How often a training puts its state on disk."""

    epochs: int = 1
    """Epochs between two checkpoints."""
    minutes: float | None = 10.0
    """Minutes after which a checkpoint is written within an epoch; null writes none there."""

    def __post_init__(self) -> None:
        self.require_least(1, "epochs")
        self.require_positive("minutes", "minutes")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(Section, section="evaluation"):
    """How trained networks are judged."""

    batches: tuple[int, ...] = (1, 64)
    """Batch sizes at which speed is measured."""
    repeats: int = 20
    """Measurements of speed at each batch size, after a warm-up."""
    larger: int | None = None
    """Side in pixels at which the test images are judged a second time; streamed images only."""

    def __post_init__(self) -> None:
        some = len(self.batches) > 0 and min(self.batches) >= 1
        self.require("batches", some, "give at least one number >= 1")
        self.require_least(1, "repeats")
        fits = self.larger is None or self.larger >= 8
        self.require("larger", fits, "give 8 or more pixels")


@dataclass(frozen=True, kw_only=True)
class Plan(Section):
    """Everything final trainings on one data set are run with (paper section 5.1)."""

    data: DataSettings
    network: NetworkSettings
    recipe: Recipe
    seed: int = 0
    """Seed of the held-out split and the selection; the search's own if its blocks are ranked."""
    seeds: int = 3
    """Final trainings of each network, with seeds 0, 1, ..."""
    search: str | None = None
    """Name of the search whose best blocks are trained."""
    top: int = 0
    """Best blocks of the search that the selection trains and ranks; 0 makes no selection."""
    selection_seeds: int = 1
    """Trainings of each of them, with seeds seed, seed + 1, ...; the mean of their held-out
    accuracies ranks it."""
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
        self.require("seed", 0 <= self.seed < 2**63, "give 0 to 2**63 - 1")
        self.require_least(1, "seeds", "selection_seeds")
        self.require_least(0, "top")
        if not self.top:
            remedy = "it has no effect where top is 0; leave it out"
            self.require_default(remedy, "selection_seeds")
        named = self.top == 0 or bool(self.search)
        self.require("search", named, "name the search whose top blocks are to be trained")
        some = self.top > 0 or bool(self.blocks) or bool(self.compare)
        self.require("blocks", some, "give blocks, compare, or a search and top above 0")
        if self.data.streamed:
            remedy = "it is for images in memory; leave it out"
            self.recipe.require_default(remedy, *STREAMED_UNUSED)
        else:
            remedy = "it is for images of data.name imagenet; leave it out"
            self.recipe.require_default(remedy, *IN_MEMORY_UNUSED)
            remedy = "only data.name imagenet is tested at a larger size; give null"
            self.evaluation.require("larger", self.evaluation.larger is None, remedy)
        remedy = "only searches train on a part of their images; leave it out, or set data.images"
        self.recipe.require_default(remedy, "images")
        whole = self.recipe.batch % (self.workers.processes * self.recipe.accumulate) == 0
        remedy = "give a multiple of workers.processes times recipe.accumulate"
        self.recipe.require("batch", whole, remedy)
