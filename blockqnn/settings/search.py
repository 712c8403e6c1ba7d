"""The settings of a search: frozen dataclasses that check themselves.

The defaults are the 2018 paper's search (sections 3.3 and 4.2); `params.yaml` states them again
where users set them, and `blockqnn.params` reads that file. Every error is a `SettingsError` that
names the field, its value and the remedy.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from blockqnn.space.block import Block
from blockqnn.settings.checks import require, share
from blockqnn.cost import Cost, network_cost
from blockqnn.settings.recipe import Recipe
from blockqnn.space.skeleton import CONNECTIONS
from blockqnn.space.spaces import LONGEST, VERSIONS, Space
from blockqnn.settings.workers import LocalSettings, WorkerSettings

PAPER_SCHEDULE: tuple[tuple[float, int], ...] = (
    (1.0, 95),
    (0.9, 7),
    (0.8, 7),
    (0.7, 7),
    (0.6, 10),
    (0.5, 10),
    (0.4, 10),
    (0.3, 10),
    (0.2, 10),
    (0.1, 12),
)


MOST = 10**6
"""Of what a search counts: more fits no memory."""


@dataclass(frozen=True, kw_only=True)
class SpaceSettings:
    """Which blocks may be proposed."""

    version: Literal["v1", "v2"] = "v1"
    """v1: the 2018 paper's layers; v2: separable convolutions for its 3x3 and 5x5 ones, poolings of
    3x3 only, our reading of the journal version's more constrained space (blockqnn/space.py)."""
    max_index: int = None  # type: ignore[assignment]  # set below: a number from then on
    """Largest layer index, terminal included; left out, 23 as in the paper, or 12 in v2."""
    max_width: int | None = None
    """Leaves of a block at most, which its output concatenates; null is the version's: no limit,
    or 4 in v2."""

    def __post_init__(self) -> None:
        require(self.version in VERSIONS, "space.version", self.version, "choose v1 or v2")
        for name in ("max_index", "max_width"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(VERSIONS[self.version], name))
        fits = 2 <= self.max_index <= LONGEST
        require(fits, "space.max_index", self.max_index, f"give 2 to {LONGEST}")
        width = self.max_width
        require(width is None or width >= 1, "space.max_width", width, "give 1 or more, or null")

    def build(self) -> Space:
        """The space that these settings describe."""
        own = VERSIONS[self.version]
        return Space(self.max_index, own.operations, self.max_width)


@dataclass(frozen=True, kw_only=True)
class QLearningSettings:
    """Tabular Q-learning with experience replay (paper section 3.2)."""

    kind: Literal["q_learning"] = "q_learning"
    learning_rate: float = 0.01
    """Step size of a Q update (alpha)."""
    discount: float = 1.0
    """Discount factor (gamma)."""
    initial_q: float = 0.5
    """Q of an action never tried; rewards are learned as percent / 100."""
    replay: int = 64
    """Trajectories replayed for each iteration's worth of outcomes."""

    def __post_init__(self) -> None:
        rate = self.learning_rate
        require(0 < rate <= 1, "agent.learning_rate", rate, "give more than 0 and at most 1")
        require(0 <= self.discount <= 1, "agent.discount", self.discount, "give 0 to 1")
        require(math.isfinite(self.initial_q), "agent.initial_q", self.initial_q, "give a number")
        require(0 <= self.replay <= MOST, "agent.replay", self.replay, f"give 0 to {MOST:,}")


@dataclass(frozen=True, kw_only=True)
class RandomSettings:
    """Uniform random walks: the baseline."""

    kind: Literal["random"] = "random"


@dataclass(frozen=True, kw_only=True)
class EvolutionSettings:
    """Regularised evolution (Real et al. 2019): the stronger baseline."""

    kind: Literal["evolution"] = "evolution"
    population: int = 100
    """Youngest candidates kept as possible parents."""
    tournament: int = 25
    """Candidates drawn for one tournament; the best of them is the parent."""

    def __post_init__(self) -> None:
        population = self.population
        require(2 <= population <= MOST, "agent.population", population, f"give 2 to {MOST:,}")
        fits = 1 <= self.tournament <= self.population
        require(fits, "agent.tournament", self.tournament, "give 1 to agent.population")


@dataclass(frozen=True, kw_only=True)
class DynaQSettings:
    """Q-learning that learns mostly from predicted rewards: the faster version, our reading."""

    kind: Literal["dyna_q"] = "dyna_q"
    imagined: int = 512
    """Trajectories imagined before a proposal, each with a predicted reward."""

    def __post_init__(self) -> None:
        require(1 <= self.imagined <= MOST, "agent.imagined", self.imagined, f"give 1 to {MOST:,}")


AgentSettings = QLearningSettings | RandomSettings | EvolutionSettings | DynaQSettings


MOST_WEIGHT = 1000
"""Percent: a reward stays a number that people and sums can handle."""


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """reward = accuracy - mu log2(MFLOPs) - rho log2(density) (paper equation 7), and, ours, less
    parameters log2(millions of parameters) and latency log2(milliseconds)."""

    mu: float = 1.0
    """Percent of accuracy that halving the multiply-accumulates is worth."""
    rho: float = 8.0
    """Percent of accuracy that halving the density is worth."""
    parameters: float = 0.0
    """Percent of accuracy that halving the parameters is worth."""
    latency: float = 0.0
    """Percent of accuracy that halving the measured latency is worth."""

    def __post_init__(self) -> None:
        for name in ("mu", "rho", "parameters", "latency"):
            value = getattr(self, name)
            fits = abs(value) <= MOST_WEIGHT
            require(
                fits,
                f"reward.{name}",
                value,
                f"give a number from -{MOST_WEIGHT:,} to {MOST_WEIGHT:,}",
            )


DATA_SETS = ("digits", "fashion-mnist", "cifar10", "cifar100", "folder", "prepared", "imagenet")
IN_MEMORY_UNUSED = ("auto_augment", "random_erasing", "augment_repeats")
"""Settings of a recipe that only streamed images have."""
READERS = ("folder", "tar", "wds")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which images, and how they are split."""

    name: str = "cifar100"
    """digits, fashion-mnist, cifar10, cifar100, folder (your own class folders), prepared (the file
    that `blockqnn data` writes), or imagenet: train/ and val/ folders of any size, read from disk
    while the network trains, for final training alone."""
    root: str | None = None
    """Directory of the images, or file of prepared ones; needed by every data set but digits."""
    download: bool = False
    """Fetch the data set through torchvision when it is not under root."""
    holdout: float = 0.1
    """Share of the training images held out to measure the reward (stratified, by seed)."""
    images: int | None = None
    """Training images kept before the split, stratified; null keeps all."""
    image_size: int | None = None
    """Side in pixels that images of a folder are resized to, once, and those of imagenet cut to,
    each time."""
    reader: str | None = None
    """Of imagenet: folder, tar or wds (WebDataset), as timm reads them; null is folder."""
    loaders: int = 4
    """Processes that read images of imagenet; 0 reads in the training process."""

    def __post_init__(self) -> None:
        choice = f"choose one of {', '.join(DATA_SETS)}"
        require(self.name in DATA_SETS, "data.name", self.name, choice)
        require(0 < self.holdout < 1, "data.holdout", self.holdout, "give more than 0, less than 1")
        if self.images is not None:
            require(self.images >= 2, "data.images", self.images, "give 2 or more, or null for all")
        if self.name == "digits":
            embedded = "digits is embedded; leave it out"
            require(self.root is None, "data.root", self.root, embedded)
        else:
            where = f"give the directory where {self.name} lies"
            if self.name == "prepared":
                where = "give the file that `blockqnn data` wrote"
            require(bool(self.root), "data.root", self.root, where)
        if self.name in ("digits", "folder", "prepared", "imagenet"):
            remedy = f"{self.name} has no download; leave it out"
            require(not self.download, "data.download", self.download, remedy)
        if self.name in ("folder", "imagenet"):
            size = self.image_size or 0
            require(8 <= size <= 1024, "data.image_size", self.image_size, "give 8 to 1024 pixels")
        else:
            only = "only folder and imagenet are resized; leave it out"
            require(self.image_size is None, "data.image_size", self.image_size, only)
        if self.streamed:
            require(self.images is None, "data.images", self.images, "imagenet is read whole")
            known = self.reader is None or self.reader in READERS
            require(known, "data.reader", self.reader, f"choose one of {', '.join(READERS)}")
        else:
            remedy = "only imagenet has one; leave it out"
            require(self.reader is None, "data.reader", self.reader, remedy)
        require(self.loaders >= 0, "data.loaders", self.loaders, "give 0 or more")

    @property
    def streamed(self) -> bool:
        """Whether images are read from disk while the network trains, instead of once."""
        return self.name == "imagenet"


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The network that is stacked from a block for the search (paper figure 3)."""

    skeleton: str = "cifar"
    """cifar or imagenet."""
    filters: tuple[int, ...] = (32, 64, 128)
    """Filters of each stage."""
    repeats: int | tuple[int, ...] = 4
    """Blocks a stage: one number, or one for each stage."""
    connections: str = "none"
    """Between blocks, our reading (blockqnn/skeleton.py): none; shortcut adds a block's input to
    its output; concat lets it read the outputs of the two blocks before it in its stage."""

    def __post_init__(self) -> None:
        known = self.skeleton in ("cifar", "imagenet")
        require(known, "network.skeleton", self.skeleton, "choose cifar or imagenet")
        whole = len(self.filters) > 0 and all(f >= 1 for f in self.filters)
        require(whole, "network.filters", self.filters, "give at least one number of filters >= 1")
        repeats = self.repeats
        if isinstance(repeats, int):
            require(repeats >= 1, "network.repeats", repeats, "give 1 or more")
        else:
            fits = len(repeats) == len(self.filters) and all(r >= 1 for r in repeats)
            require(fits, "network.repeats", repeats, "give one number >= 1 for each stage")
        connections = self.connections
        choice = f"choose {', '.join(CONNECTIONS[:-1])} or {CONNECTIONS[-1]}"
        require(connections in CONNECTIONS, "network.connections", connections, choice)
        several = max((repeats,) if isinstance(repeats, int) else repeats) > 1
        remedy = "it joins blocks of a stage; give network.repeats of 2 or more, or shortcut"
        require(connections != "concat" or several, "network.connections", connections, remedy)

    def cost(self, block: Block, *, num_classes: int, in_channels: int, image_size: int) -> Cost:
        """What the network stacked from a block costs; raises as `network_cost` does."""
        return network_cost(
            block,
            filters=self.filters,
            repeats=self.repeats,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
            skeleton=self.skeleton,
            connections=self.connections,
        )

    def described(self) -> dict[str, Any]:
        """Plain values that say which network it is. Connections are left out where there are none:
        what was made before there were any is still named the same."""
        values = dataclasses.asdict(self)
        if self.connections == "none":
            del values["connections"]
        return values


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a block's network may cost; beyond it the block is infeasible and never trained."""

    macs: int | None = None
    """Multiply-accumulates of one image; null for no limit."""
    parameters: int | None = None
    """Trainable parameters; null for no limit."""
    memory: int | None = 16 * 2**30
    """Bytes of one training step in float32, estimated from the code; null for no limit. With the
    paper's network and batch, block A needs 11.6 GiB and half of all random blocks more than 16:
    plain concatenation widens from block to block."""
    latency: float | None = None
    """Milliseconds of one forward pass, measured as `latency` says; null for no limit."""

    def __post_init__(self) -> None:
        if self.latency is not None:
            fits = math.isfinite(self.latency) and self.latency > 0
            remedy = "give milliseconds greater than 0, or null"
            require(fits, "budget.latency", self.latency, remedy)
        for name in ("macs", "parameters", "memory"):
            value = getattr(self, name)
            require(
                value is None or value > 0, f"budget.{name}", value, "give more than 0, or null"
            )


@dataclass(frozen=True, kw_only=True)
class LatencySettings:
    """How a candidate's latency is measured: forward passes on the device that is to train it, by
    the recipe's precision, before it is trained."""

    measure: bool = False
    """Whether, also where neither budget.latency nor reward.latency asks for it."""
    batch: int = 1
    """Images of a pass."""
    passes: int = 20
    """Of which the median counts."""

    def __post_init__(self) -> None:
        require(1 <= self.batch <= 2**16, "latency.batch", self.batch, "give 1 to 65,536")
        require(1 <= self.passes <= 10**4, "latency.passes", self.passes, "give 1 to 10,000")


@dataclass(frozen=True, kw_only=True)
class StoppingSettings:
    """When a candidate is stopped whose curve is certain to end badly (our reading)."""

    worse: float = 0.0
    """Badly: with a reward in the worse part of those so far, say 0.5; 0 stops nobody."""
    certainty: float = 0.95
    """Certain: predicted with this probability, by the surrogate from the epochs seen."""
    after: int = 32
    """Trained blocks before anything is stopped: what the surrogate learns from."""
    spared: float = 0.1
    """Share of the candidates that are trained to the end whatever their curve, so that the
    surrogate sees bad ones too."""

    def __post_init__(self) -> None:
        share("stopping.worse", self.worse)
        fits = 0.5 <= self.certainty < 1
        require(fits, "stopping.certainty", self.certainty, "give 0.5 to below 1")
        require(self.after >= 4, "stopping.after", self.after, "give 4 or more")
        share("stopping.spared", self.spared)
        if self.worse == 0:
            for setting in dataclasses.fields(self):
                value = getattr(self, setting.name)
                remedy = "it has no effect while stopping.worse is 0; leave it out"
                require(value == setting.default, f"stopping.{setting.name}", value, remedy)


FINAL_ONLY = ("sync_batch_norm", "compile")
"""Settings of a recipe that have no effect in a search: a candidate is one process, and compiling
takes longer than its training."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a search is run with."""

    seed: int = 0
    """Seed of every random number."""
    mode: Literal["sync", "async"] = "sync"
    """sync: the agent learns from whole iterations; async: a new block as soon as a worker is free,
    and the agent learns from each outcome."""
    batch: int = 64
    """Candidates an iteration."""
    schedule: tuple[tuple[float, int], ...] = PAPER_SCHEDULE
    """Exploration: pairs of epsilon and its number of iterations."""
    space: SpaceSettings = field(default_factory=SpaceSettings)
    agent: AgentSettings = field(default_factory=QLearningSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    data: DataSettings = field(default_factory=lambda: DataSettings(root="data"))
    network: NetworkSettings = field(default_factory=NetworkSettings)
    recipe: Recipe = field(default_factory=Recipe)
    budget: Budget = field(default_factory=Budget)
    latency: LatencySettings = field(default_factory=LatencySettings)
    stopping: StoppingSettings = field(default_factory=StoppingSettings)
    workers: WorkerSettings = field(default_factory=LocalSettings)
    tracking: bool = True
    """Mirror the search in MLflow."""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "seed", self.seed, "give 0 to 2**63 - 1")
        require(self.mode in ("sync", "async"), "mode", self.mode, "choose sync or async")
        require(1 <= self.batch <= MOST, "batch", self.batch, f"give 1 to {MOST:,}")
        remedy = "give pairs of an epsilon from 0 to 1 and a number of iterations >= 1"
        require(len(self.schedule) > 0, "schedule", self.schedule, remedy)
        for epsilon, iterations in self.schedule:
            require(0 <= epsilon <= 1 and iterations >= 1, "schedule", self.schedule, remedy)

        if not self.measures_latency:
            for name in ("batch", "passes"):
                value = getattr(self.latency, name)
                remedy = "no latency is measured; leave it out, or set latency.measure=true"
                require(value == getattr(LatencySettings, name), f"latency.{name}", value, remedy)
        remedy = "a training of one epoch cannot be stopped early; leave it out"
        one = self.stopping.worse > 0 and self.recipe.epochs == 1
        require(not one, "stopping.worse", self.stopping.worse, remedy)
        remedy = "a search keeps its images in memory; choose folder for your own"
        require(not self.data.streamed, "data.name", self.data.name, remedy)
        for name in IN_MEMORY_UNUSED:
            value = getattr(self.recipe, name)
            remedy = "images in memory have none; leave it out, or see recipe.crop and cutout"
            require(not value, f"recipe.{name}", value, remedy)
        for name in FINAL_ONLY:
            value = getattr(self.recipe, name)
            remedy = "only final trainings have it; leave it out"
            require(not value, f"recipe.{name}", value, remedy)

    @property
    def needs_latency(self) -> bool:
        """Whether what becomes of a candidate depends on its latency."""
        return self.budget.latency is not None or self.reward.latency != 0

    @property
    def measures_latency(self) -> bool:
        """Whether the latency of every candidate is measured."""
        return self.needs_latency or self.latency.measure

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in params.yaml and in the journal."""
        return dataclasses.asdict(self)
