"""Settings of a search; the defaults are the 2018 paper's (sections 3.3 and 4.2)."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from blockqnn.settings.agents import AgentSettings, QLearningSettings
from blockqnn.settings.checks import MOST, Section
from blockqnn.settings.data import IN_MEMORY_UNUSED, DataSettings
from blockqnn.settings.network import MEASURED, NetworkSettings
from blockqnn.settings.recipe import Recipe
from blockqnn.settings.space import SpaceSettings
from blockqnn.settings.workers import LocalSettings, WorkerSettings
from blockqnn.space import Shape, ShapedSpace, Space

PAPER_SCHEDULE: tuple[tuple[float, int], ...] = (
    (1.0, 95),
    *((epsilon, 7) for epsilon in (0.9, 0.8, 0.7)),
    *((epsilon, 10) for epsilon in (0.6, 0.5, 0.4, 0.3, 0.2)),
    (0.1, 12),
)
"""The paper's pairs of epsilon and its number of iterations (table 2)."""

MOST_WEIGHT = 1000
"""Largest weight of the reward in percent, so that rewards stay numbers of everyday size."""


@dataclass(frozen=True, kw_only=True)
class TradeOffSettings(Section, section="reward.trade_off"):
    """What a costlier network has to be better by, in objective accuracy.

    Costs are held against those of the network of block `plain` with the same filters and repeats.
    """

    macs: float = 0.0
    """Percent of the accuracy above chance that each doubling of the multiply-accumulates takes."""
    parameters: float = 0.0
    """Percent of the accuracy above chance that each doubling of the parameters takes."""
    seconds: float = 0.0
    """Percent of the accuracy above chance that each doubling of the training time takes, which is
    predicted for the device at hand."""
    latency: float = 0.0
    """Percent of the accuracy above chance that each doubling of the latency of a forward pass
    takes (see section latency)."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            self.require(name, 0 <= value <= 50, "give 0 to 50 percent")


@dataclass(frozen=True, kw_only=True)
class RewardSettings(Section, section="reward"):
    """What a search looks for: the paper's reward (equation 7), accuracy - mu log2(MFLOPs) - rho
    log2(density) in percent, or the accuracy, within the budget and with the trade-offs asked for.

    In objective paper, prices of parameters and of latency are ours, in the same form.
    """

    objective: Literal["paper", "accuracy"] = "paper"
    """paper: equation 7, and chance for what was not trained; accuracy: the held-out accuracy, and
    less than any for what was not trained."""
    metric: Literal["accuracy", "balanced_accuracy"] = "accuracy"
    """Which accuracy: the share of right answers, or the mean of the classes' shares, which counts
    rare classes as much as frequent ones."""
    mu: float = 1.0
    """Percent of accuracy that a network with half the multiply-accumulates is worth more, in
    objective paper."""
    rho: float = 8.0
    """Percent of accuracy that a block of half the density is worth more, in objective paper."""
    parameters: float = 0.0
    """Percent of accuracy that a network with half the parameters is worth more, in objective
    paper; 0 has no price."""
    latency: float = 0.0
    """Percent of accuracy that half the latency is worth more, in objective paper; 0 has no
    price."""
    trade_off: TradeOffSettings = field(default_factory=TradeOffSettings)
    """What a costlier network has to be better by, in objective accuracy."""

    def __post_init__(self) -> None:
        remedy = f"give a number from -{MOST_WEIGHT:,} to {MOST_WEIGHT:,}"
        for name in ("mu", "rho", "parameters", "latency"):
            self.require(name, abs(getattr(self, name)) <= MOST_WEIGHT, remedy)
        objectives = ("paper", "accuracy")
        self.require("objective", self.objective in objectives, f"choose {' or '.join(objectives)}")
        metrics = ("accuracy", "balanced_accuracy")
        self.require("metric", self.metric in metrics, f"choose {' or '.join(metrics)}")
        if self.objective == "paper":
            remedy = "the paper's reward has prices of its own; leave it out, or set "
            remedy += "reward.objective=accuracy"
            self.trade_off.require_default(remedy, "macs", "parameters", "seconds", "latency")
        else:
            remedy = "only the paper's reward has it; leave it out, set reward.trade_off or a "
            remedy += "budget, or set reward.objective=paper"
            self.require_default(remedy, "mu", "rho", "parameters", "latency")


@dataclass(frozen=True, kw_only=True)
class Budget(Section, section="budget"):
    """What a block's network may cost; beyond it the block is infeasible and never trained."""

    macs: int | None = None
    """Most multiply-accumulates for one image; null sets no limit."""
    times_plain: float | None = None
    """Most multiply-accumulates beside those of the network of block plain, which are 1: a limit
    that fits images of every size; null sets none."""
    parameters: int | None = None
    """Most trainable parameters; null sets no limit."""
    memory: int | None = 16 * 2**30
    """Most bytes of one training step in float32, by estimate; null sets no limit. In the paper's
    network and batch, block A needs 11.6 GiB, and half of all random blocks more than 16 GiB."""
    seconds: float | None = None
    """Most seconds that the first training of a candidate may take, predicted for the device at
    hand; null sets no limit."""
    latency: float | None = None
    """Most milliseconds of one forward pass (see section latency); null sets no limit."""

    def __post_init__(self) -> None:
        fits = self.latency is None or 0 < self.latency < math.inf
        self.require("latency", fits, "give milliseconds greater than 0, or null")
        self.require_positive("a factor", "times_plain")
        self.require_positive("seconds", "seconds")
        for name in ("macs", "parameters", "memory"):
            value = getattr(self, name)
            self.require(name, value is None or value > 0, "give more than 0, or null")


@dataclass(frozen=True, kw_only=True)
class LatencySettings(Section, section="latency"):
    """How long a forward pass of a candidate takes, in the recipe's precision: predicted from its
    code, or measured on the device that is to train it, before it is trained."""

    source: Literal["predicted", "measured"] = "predicted"
    """Which latency budgets and rewards use: the one predicted from prices of layers, which a
    search measures once when it begins, or each candidate's own measurement."""
    measure: bool = False
    """Measure every candidate's latency even if no budget or reward uses it."""
    batch: int = 1
    """Images in one forward pass."""
    passes: int = 20
    """Passes timed; the latency is their median."""

    def __post_init__(self) -> None:
        known = ("predicted", "measured")
        self.require("source", self.source in known, f"choose {' or '.join(known)}")
        self.require("batch", 1 <= self.batch <= 2**16, "give 1 to 65,536")
        self.require("passes", 1 <= self.passes <= 10**4, "give 1 to 10,000")


@dataclass(frozen=True, kw_only=True)
class StoppingSettings(Section, section="stopping"):
    """When a candidate is stopped whose curve is certain to end badly (our reading)."""

    worse: float = 0.0
    """Share of the rewards so far that count as bad, for example 0.5; 0 stops no candidate."""
    certainty: float = 0.95
    """Probability, from 0.5 to below 1, with which the surrogate must predict a bad end."""
    after: int = 32
    """Blocks trained to their end before any is stopped; the surrogate learns from them."""
    spared: float = 0.1
    """Share of candidates trained to their end in any case; the surrogate learns from bad ones."""

    def __post_init__(self) -> None:
        self.require_share("worse")
        self.require("certainty", 0.5 <= self.certainty < 1, "give 0.5 to below 1")
        self.require_least(4, "after")
        self.require_share("spared")
        if self.worse == 0:
            remedy = "it has no effect while stopping.worse is 0; leave it out"
            self.require_default(remedy, "certainty", "after", "spared")


@dataclass(frozen=True, kw_only=True)
class RungSettings(Section, section="rungs"):
    """A further training of the best candidates of the rung before, from the weights that they
    have, by the same recipe but for what is said here."""

    share: float = 0.25
    """Share of the candidates trained on the rung before that go on to this one."""
    epochs: int = 12
    """Passes over the training images, after those of the rungs before."""
    images: int | None = None
    """Training images, among them those of the rungs before; null takes all."""

    def __post_init__(self) -> None:
        self.require("share", 0 < self.share <= 1, "give above 0 to 1")
        self.require_least(1, "epochs")
        self.require_least(2, "images")


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """Everything a search is run with."""

    seed: int = 0
    """Seed of every random number of the search, from 0 to 2**63 - 1."""
    mode: Literal["sync", "async"] = "sync"
    """sync learns from whole iterations and is reproducible bit by bit; async proposes a new block
    as soon as a worker is free, and learns from each outcome."""
    batch: int = 64
    """Candidates in one iteration."""
    schedule: tuple[tuple[float, int], ...] = PAPER_SCHEDULE
    """Pairs of epsilon, the probability of a random action, and its number of iterations."""
    space: SpaceSettings = field(default_factory=SpaceSettings)
    agent: AgentSettings = field(default_factory=QLearningSettings)
    reward: RewardSettings = field(default_factory=RewardSettings)
    data: DataSettings = field(default_factory=lambda: DataSettings(root="data"))
    network: NetworkSettings = field(default_factory=NetworkSettings)
    recipe: Recipe = field(default_factory=Recipe)
    rungs: tuple[RungSettings, ...] = ()
    """Further trainings of the best candidates: first those of the second rung, as the recipe's is
    the first; none leaves it at that."""
    budget: Budget = field(default_factory=Budget)
    latency: LatencySettings = field(default_factory=LatencySettings)
    stopping: StoppingSettings = field(default_factory=StoppingSettings)
    workers: WorkerSettings = field(default_factory=LocalSettings)
    tracking: bool = True
    """Write the search to MLflow."""

    def __post_init__(self) -> None:
        self.require("seed", 0 <= self.seed < 2**63, "give 0 to 2**63 - 1")
        self.require("mode", self.mode in ("sync", "async"), "choose sync or async")
        self.require("batch", 1 <= self.batch <= MOST, f"give 1 to {MOST:,}")
        pairs = [0 <= epsilon <= 1 and iterations >= 1 for epsilon, iterations in self.schedule]
        remedy = "give pairs of an epsilon from 0 to 1 and a number of iterations >= 1"
        self.require("schedule", len(pairs) > 0 and all(pairs), remedy)
        uses = self.needs_latency or self.reward.trade_off.latency
        if not (uses or self.latency.measure):
            remedy = "no latency is used; leave it out, or set latency.measure=true"
            self.latency.require_default(remedy, "batch")
        if not self.needs_latency:
            remedy = "no budget and no reward uses a latency; leave it out"
            self.latency.require_default(remedy, "source")
        if not self.measures_latency:
            remedy = "no latency is measured; leave it out, or set latency.source=measured"
            self.latency.require_default(remedy, "passes")
        if self.recipe.epochs == 1:
            remedy = "a training of one epoch cannot be stopped early; leave it out"
            self.stopping.require_default(remedy, "worse")
        remedy = "a search keeps its images in memory; choose folder for your own"
        self.data.require("name", not self.data.streamed, remedy)
        remedy = "images in memory have none; leave it out, or see recipe.crop and cutout"
        self.recipe.require_default(remedy, *IN_MEMORY_UNUSED)
        remedy = "in a search the agent chooses them; give space.repeats"
        self.network.require_default(remedy, "match_repeats")
        self._check_rungs()
        self._check_shapes()
        # as a candidate is one process, and compiling takes longer than its training
        remedy = "only final trainings have it; leave it out"
        self.recipe.require_default(remedy, "sync_batch_norm", "compile")

    def _check_rungs(self) -> None:
        """A rung has no fewer images than the one before, and its schedule fits its epochs."""
        before = self.recipe.images
        for rung in self.rungs:
            fits = rung.images is None or (before is not None and rung.images >= before)
            rung.require("images", fits, "give as many as the rung before has, or more")
            warm = self.recipe.warmup_epochs < rung.epochs
            rung.require("epochs", warm, "give more than recipe.warmup_epochs")
            before = rung.images

    def _check_shapes(self) -> None:
        """Every shape that may be chosen makes a network."""
        shapes, one = self.space.shapes(len(self.network.filters)), self.network.repeats == 1
        joins = "concat" in self.space.connections and not shapes
        joins |= any(s.connections == "concat" and s.repeats is None and one for s in shapes)
        remedy = "it joins blocks of a stage; offer space.repeats of 2 or more too"
        self.space.require("connections", not joins, remedy)
        several = len(self.space.connections) > 1
        remedy = "networks that are the same but for it share a training; offer one connection"
        self.recipe.require("drop_path", not (several and self.recipe.drop_path), remedy)
        lost = self.network.connections == "concat" and 1 in self.space.repeats
        self.space.require("repeats", not lost, "network.connections concat wants 2 or more")

    @property
    def designs(self) -> Space | ShapedSpace:
        """What may be proposed: blocks, or blocks in a shape."""
        return self.space.designs(len(self.network.filters))

    def shaped(self, shape: Shape) -> Self:
        """Return the settings with what a candidate's network has of its own, and nothing of that
        left to choose.
        """
        return replace(self, network=self.network.shaped(shape), space=self.space.blocks)

    def recipe_of(self, rung: int) -> Recipe:
        """Return how candidates are trained on a rung, of which 0 is the first."""
        if rung == 0:
            return self.recipe
        own = self.rungs[rung - 1]
        return replace(self.recipe, epochs=own.epochs, images=own.images)

    @property
    def needs_latency(self) -> bool:
        """Whether what becomes of a candidate depends on its latency, trade-offs aside."""
        return self.budget.latency is not None or self.reward.latency != 0

    @property
    def judges_measured_latency(self) -> bool:
        """Whether what becomes of a candidate depends on a measurement of its latency."""
        return self.needs_latency and self.latency.source == "measured"

    @property
    def measures_latency(self) -> bool:
        """Whether the latency of every candidate is measured."""
        return self.latency.measure or self.judges_measured_latency

    @property
    def needs_prices(self) -> bool:
        """Whether the search has to know what layers cost on its device."""
        predicts = self.needs_latency and self.latency.source == "predicted"
        trades = self.reward.trade_off.seconds or self.reward.trade_off.latency
        times = self.budget.seconds is not None or trades != 0
        return predicts or times or self.network.match in MEASURED
