"""How a network is trained, for a short time in a search and for a long one finally."""

import difflib
from dataclasses import dataclass
from typing import Any

from blockqnn.settings.checks import Section

SCHEDULES = ("step", "multistep", "cosine", "linear")
LOSSES = ("cross_entropy", "bce")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
USUAL_OPTIMIZERS = ("adam", "adamw", "lamb", "momentum", "sgd")
"""Known without importing timm, which takes a second."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Section, section="recipe"):
    """How a network is trained. The defaults are the search's proxy task (paper section 4.2).

    Optimisers, schedules, mixup, weight averages and image transforms are timm's.
    """

    epochs: int = 12
    """Passes over the training images."""
    images: int | None = None
    """Training images, drawn once, each class in proportion; null takes all. Images in memory
    only."""
    batch: int = 256
    """Images in one optimiser step, over all processes and accumulated parts."""
    optimizer: str = "adam"
    """timm's name of an optimiser: adam, adamw, lamb, momentum (SGD with momentum), sgd (SGD with
    Nesterov's momentum) and many more."""
    learning_rate: float = 0.001
    """Learning rate of the first epochs, after the warm-up."""
    schedule: str = "step"
    """How the learning rate falls: step (times decay every decay_epochs), multistep (times decay at
    the milestones), cosine or linear (from the end of the warm-up to min_learning_rate)."""
    decay: float = 0.2
    """Factor on the learning rate at each reduction by schedule step or multistep."""
    decay_epochs: int = 5
    """Epochs between two reductions by schedule step."""
    milestones: tuple[int, ...] = ()
    """Epochs at whose beginning schedule multistep reduces the learning rate."""
    warmup_epochs: int = 0
    """First epochs, in which the learning rate rises linearly; they are part of epochs."""
    warmup_learning_rate: float = 1e-5
    """Learning rate at the first step of a warm-up."""
    min_learning_rate: float = 0.0
    """Learning rate at the end of schedule cosine."""
    momentum: float = 0.9
    """Momentum of the optimiser; beta 1 of adam and optimisers like it."""
    weight_decay: float = 0.0
    """Weight decay: an L2 penalty or a decoupled decay, as the optimiser has it."""
    decay_all: bool = True
    """Decay the parameters of batch norm and the biases too, as the 2018 paper does."""
    restarts: int = 3
    """Fresh starts allowed when the first epoch is no better than chance."""
    restart_factor: float = 0.4
    """Factor on the learning rate at each fresh start."""
    loss: str = "cross_entropy"
    """Loss: cross_entropy, or bce, in which each class counts by itself and targets above 0.2 are 1
    (as in timm's recipe A2)."""
    label_smoothing: float = 0.0
    """Share of each target that is spread over all classes."""
    mixup: float = 0.0
    """Alpha of mixup; 0 does not mix images."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 does not mix images. Each batch draws one if mixup is above 0 too."""
    crop: int = 0
    """Pixels of zero padding for random crops; 0 does not crop. Images in memory only."""
    flip: bool = False
    """Mirror images from left to right at random."""
    cutout: int = 0
    """Side in pixels of a square blanked at random; 0 blanks none. Images in memory only."""
    auto_augment: str | None = None
    """timm's augmentation policy, such as rand-m7-mstd0.5-inc1. Streamed images only."""
    random_erasing: float = 0.0
    """Share of the images in which a random rectangle is erased. Streamed images only."""
    augment_repeats: int = 0
    """Copies of each image in a batch (repeated augmentation); 0 means 1. Streamed images only."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is then evaluated and kept; 0 makes none."""
    drop_path: float = 0.0
    """Chance to drop an operand of an add or a concat in the last block; less in earlier ones."""
    dropout: float = 0.0
    """Chance to drop an input of the linear layer."""
    clip_gradient: float | None = None
    """Largest norm of the gradient; null does not clip."""
    accumulate: int = 1
    """Parts of a batch computed one after the other to save memory; batch norm sees one part."""
    sync_batch_norm: bool = False
    """Take statistics of batch norm over all processes of a training on several GPUs."""
    compile: bool = False
    """Compile the network by torch.compile, which takes minutes once and makes steps faster."""
    precision: str = "auto"
    """Arithmetic: float32, bfloat16 or float16 (mixed precision), or auto, which is bfloat16 if the
    device is fast in it and else float32."""

    def __post_init__(self) -> None:
        remedy = "give 2 or more: batch norm has no variance of one image"
        self.require("batch", self.batch >= 2, remedy)
        self.require_least(1, "epochs", "decay_epochs", "accumulate")
        self.require_least(2, "images")
        self.require_least(0, "restarts", "crop", "cutout", "augment_repeats", "warmup_epochs")
        self.require_least(0, "weight_decay", "mixup", "cutmix", "min_learning_rate")
        self.require_share("momentum", "label_smoothing", "ema")
        self.require_share("drop_path", "dropout", "random_erasing")
        self.require_positive("a rate", "learning_rate", "warmup_learning_rate")
        self.require_positive("a factor", "restart_factor", "decay")
        self.require_positive("a norm", "clip_gradient")
        self._check_choices()
        self._check_schedule()
        fits = self.accumulate == 1 or 2 * self.accumulate <= self.batch
        self.require("accumulate", fits, "give parts of 2 images or more")

    def described(self) -> dict[str, Any]:
        """Return plain values that name the recipe, without the number of images if it has all:
        recipes from before there was one keep their name."""
        values = self.to_dict()
        return {name: value for name, value in values.items() if (name, value) != ("images", None)}

    def _check_choices(self) -> None:
        choices = {"schedule": SCHEDULES, "loss": LOSSES, "precision": PRECISIONS}
        for name, known in choices.items():
            self.require(name, getattr(self, name) in known, f"choose {', '.join(known)}")
        if self.optimizer not in USUAL_OPTIMIZERS:
            from timm.optim import list_optimizers

            names = [str(name) for name in list_optimizers()]
            near = difflib.get_close_matches(self.optimizer, names, n=3) or list(USUAL_OPTIMIZERS)
            remedy = f"choose {', '.join(near)} or another of timm's"
            self.require("optimizer", self.optimizer in names, remedy)

    def _check_schedule(self) -> None:
        """A schedule's own settings have an effect, and others' are not set."""
        stones = self.milestones
        ascending = all(a < b for a, b in zip((0, *stones), stones, strict=False))
        self.require("milestones", ascending, "give rising epochs from 1 on")
        if self.schedule == "multistep":
            self.require("milestones", bool(stones), "multistep needs at least one")
        else:
            remedy = f"{self.schedule} has none; leave it out, or choose schedule multistep"
            self.require_default(remedy, "milestones")
        if self.schedule not in ("cosine", "linear"):
            remedy = f"{self.schedule} has no end; leave it out, or choose cosine or linear"
            self.require_default(remedy, "min_learning_rate")
        self.require("warmup_epochs", self.warmup_epochs < self.epochs, "give fewer than epochs")
