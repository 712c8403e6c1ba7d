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

from blockqnn.errors import SettingsError

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


def _require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise SettingsError(f"{name} is {value!r}: {remedy}")


def _positive(name: str, value: float, what: str) -> None:
    finite = math.isfinite(value)
    _require(finite and value > 0, name, value, f"give {what} greater than 0")


@dataclass(frozen=True, kw_only=True)
class SpaceSettings:
    """Which blocks may be proposed."""

    max_index: int = 23
    """Largest layer index, terminal included (paper: 23)."""

    def __post_init__(self) -> None:
        _require(2 <= self.max_index <= 64, "space.max_index", self.max_index, "give 2 to 64")


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
    """Trajectories replayed after each iteration."""

    def __post_init__(self) -> None:
        rate = self.learning_rate
        _require(0 < rate <= 1, "agent.learning_rate", rate, "give more than 0 and at most 1")
        _require(0 <= self.discount <= 1, "agent.discount", self.discount, "give 0 to 1")
        _require(math.isfinite(self.initial_q), "agent.initial_q", self.initial_q, "give a number")
        _require(self.replay >= 0, "agent.replay", self.replay, "give 0 or more")


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
        _require(self.population >= 2, "agent.population", self.population, "give 2 or more")
        fits = 1 <= self.tournament <= self.population
        _require(fits, "agent.tournament", self.tournament, "give 1 to agent.population")


AgentSettings = QLearningSettings | RandomSettings | EvolutionSettings


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """reward = accuracy - mu log2(MFLOPs) - rho log2(density) (paper equation 7)."""

    mu: float = 1.0
    """Percent of accuracy that halving the multiply-accumulates is worth."""
    rho: float = 8.0
    """Percent of accuracy that halving the density is worth."""

    def __post_init__(self) -> None:
        _require(math.isfinite(self.mu), "reward.mu", self.mu, "give a number")
        _require(math.isfinite(self.rho), "reward.rho", self.rho, "give a number")


DATA_SETS = ("digits", "fashion-mnist", "cifar10", "cifar100", "folder")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which images, and how they are split."""

    name: str = "cifar100"
    """digits, fashion-mnist, cifar10, cifar100, or folder (your own class folders)."""
    root: str | None = None
    """Directory of the images; needed by every data set but digits."""
    download: bool = False
    """Fetch the data set through torchvision when it is not under root."""
    holdout: float = 0.1
    """Share of the training images held out to measure the reward (stratified, by seed)."""
    images: int | None = None
    """Training images kept before the split, stratified; null keeps all."""
    image_size: int | None = None
    """Side in pixels that images of a folder are resized to, once."""

    def __post_init__(self) -> None:
        choice = f"choose one of {', '.join(DATA_SETS)}"
        _require(self.name in DATA_SETS, "data.name", self.name, choice)
        _require(
            0 < self.holdout < 1, "data.holdout", self.holdout, "give more than 0, less than 1"
        )
        if self.images is not None:
            _require(
                self.images >= 2, "data.images", self.images, "give 2 or more, or null for all"
            )
        if self.name == "digits":
            embedded = "digits is embedded; leave it out"
            _require(self.root is None, "data.root", self.root, embedded)
            _require(not self.download, "data.download", self.download, embedded)
        else:
            where = f"give the directory where {self.name} lies"
            _require(bool(self.root), "data.root", self.root, where)
        if self.name == "folder":
            size = self.image_size or 0
            _require(8 <= size <= 1024, "data.image_size", self.image_size, "give 8 to 1024 pixels")
            _require(not self.download, "data.download", self.download, "a folder has no download")
        else:
            only = "only data.name folder is resized; leave it out"
            _require(self.image_size is None, "data.image_size", self.image_size, only)


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The network that is stacked from a block for the search (paper figure 3)."""

    skeleton: str = "cifar"
    """cifar or imagenet."""
    filters: tuple[int, ...] = (32, 64, 128)
    """Filters of each stage."""
    repeats: int | tuple[int, ...] = 4
    """Blocks a stage: one number, or one for each stage."""

    def __post_init__(self) -> None:
        known = self.skeleton in ("cifar", "imagenet")
        _require(known, "network.skeleton", self.skeleton, "choose cifar or imagenet")
        whole = len(self.filters) > 0 and all(f >= 1 for f in self.filters)
        _require(whole, "network.filters", self.filters, "give at least one number of filters >= 1")
        repeats = self.repeats
        if isinstance(repeats, int):
            _require(repeats >= 1, "network.repeats", repeats, "give 1 or more")
        else:
            fits = len(repeats) == len(self.filters) and all(r >= 1 for r in repeats)
            _require(fits, "network.repeats", repeats, "give one number >= 1 for each stage")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained. The defaults are the search's proxy task (paper section 4.2)."""

    epochs: int = 12
    """Passes over the training images."""
    batch: int = 256
    """Images a step."""
    optimizer: str = "adam"
    """adam or sgd."""
    learning_rate: float = 0.001
    """Learning rate of the first epochs."""
    decay: float = 0.2
    """Factor on the learning rate every decay_epochs epochs."""
    decay_epochs: int = 5
    """Epochs between two reductions of the learning rate."""
    momentum: float = 0.9
    """Momentum of sgd; beta 1 of adam."""
    weight_decay: float = 0.0
    """L2 penalty."""
    restarts: int = 3
    """Fresh starts allowed when the first epoch is no better than chance."""
    restart_factor: float = 0.4
    """Factor on the learning rate at each fresh start."""
    crop: int = 0
    """Zero padding of random crops in pixels; 0 does not crop."""
    flip: bool = False
    """Mirror images at random."""
    cutout: int = 0
    """Side of the square that cutout blanks, in pixels; 0 blanks nothing."""
    precision: str = "auto"
    """float32, bfloat16 (automatic mixed precision), or auto: bfloat16 where the device is fast in
    it.
    """

    def __post_init__(self) -> None:
        remedy = "give 2 or more: batch norm has no variance of one image"
        _require(self.batch >= 2, "recipe.batch", self.batch, remedy)
        for name in ("epochs", "decay_epochs"):
            _require(
                getattr(self, name) >= 1, f"recipe.{name}", getattr(self, name), "give 1 or more"
            )
        for name in ("restarts", "crop", "cutout"):
            _require(
                getattr(self, name) >= 0, f"recipe.{name}", getattr(self, name), "give 0 or more"
            )
        _positive("recipe.learning_rate", self.learning_rate, "a rate")
        _positive("recipe.restart_factor", self.restart_factor, "a factor")
        _positive("recipe.decay", self.decay, "a factor")
        known = self.optimizer in ("adam", "sgd")
        _require(known, "recipe.optimizer", self.optimizer, "choose adam or sgd")
        _require(0 <= self.momentum < 1, "recipe.momentum", self.momentum, "give 0 to below 1")
        finite = 0 <= self.weight_decay < math.inf
        _require(finite, "recipe.weight_decay", self.weight_decay, "give 0 or more")
        known = self.precision in ("auto", "float32", "bfloat16")
        choice = "choose auto, float32 or bfloat16"
        _require(known, "recipe.precision", self.precision, choice)

    def learning_rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0."""
        return self.learning_rate * self.decay ** (epoch // self.decay_epochs)


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

    def __post_init__(self) -> None:
        for name in ("macs", "parameters", "memory"):
            value = getattr(self, name)
            _require(
                value is None or value > 0, f"budget.{name}", value, "give more than 0, or null"
            )


@dataclass(frozen=True, kw_only=True)
class InlineSettings:
    """Candidates are trained one after the other in the flow's own process."""

    kind: Literal["inline"] = "inline"
    device: str = "auto"
    """cpu, cuda, cuda:1, or auto: the first GPU, else the CPU."""
    threads: int = 1
    """CPU threads of torch."""

    def __post_init__(self) -> None:
        _require(self.threads >= 1, "workers.threads", self.threads, "give 1 or more")
        _check_device("workers.device", self.device)

    @property
    def slots(self) -> int:
        """Candidates in training at one time."""
        return 1


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """Candidates are trained by long-lived processes, each with its own device or threads."""

    kind: Literal["processes"] = "processes"
    count: int | None = None
    """Processes; null: one a GPU, or one a CPU core."""
    devices: tuple[str, ...] = ()
    """Devices dealt out in turn, say [cuda:0, cuda:1]; empty: every GPU, else the CPU."""
    threads: int = 1
    """CPU threads of torch in each process."""
    timeout: float = 24 * 3600.0
    """Seconds after which a training is stopped and tried again from its last checkpoint."""
    retries: int = 6
    """Further attempts after a worker died, failed to start, or ran out of time."""

    def __post_init__(self) -> None:
        count = self.count
        _require(count is None or count >= 1, "workers.count", count, "give 1 or more, or null")
        _require(self.threads >= 1, "workers.threads", self.threads, "give 1 or more")
        _require(self.retries >= 0, "workers.retries", self.retries, "give 0 or more")
        _positive("workers.timeout", self.timeout, "seconds")
        for device in self.devices:
            _check_device("workers.devices", device)


def _check_device(name: str, device: str) -> None:
    kind, _, number = device.partition(":")
    known = device in ("auto", "cpu", "mps") or (
        kind == "cuda" and (number.isdecimal() or not number)
    )
    _require(
        known and not device.endswith(":"), name, device, "give cpu, cuda, cuda:N, mps or auto"
    )


WorkerSettings = InlineSettings | ProcessSettings


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a search is run with."""

    seed: int = 0
    """Seed of every random number."""
    mode: Literal["sync", "async"] = "sync"
    """sync: the agent learns from whole iterations; async: a block as soon as a worker is free."""
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
    workers: WorkerSettings = field(default_factory=ProcessSettings)
    tracking: bool = True
    """Mirror the search in MLflow."""

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, "seed", self.seed, "give 0 to 2**63 - 1")
        _require(self.mode in ("sync", "async"), "mode", self.mode, "choose sync or async")
        _require(self.batch >= 1, "batch", self.batch, "give 1 or more")
        remedy = "give pairs of an epsilon from 0 to 1 and a number of iterations >= 1"
        _require(len(self.schedule) > 0, "schedule", self.schedule, remedy)
        for epsilon, iterations in self.schedule:
            _require(0 <= epsilon <= 1 and iterations >= 1, "schedule", self.schedule, remedy)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in params.yaml and in the journal."""
        return dataclasses.asdict(self)
