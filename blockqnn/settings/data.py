"""Settings of the images, the section `data` of params.yaml."""

from dataclasses import dataclass

from blockqnn.settings.checks import Section

DATA_SETS = ("digits", "fashion-mnist", "cifar10", "cifar100", "folder", "prepared", "imagenet")

IN_MEMORY_UNUSED = ("auto_augment", "random_erasing", "augment_repeats")
"""Settings of a recipe that only streamed images have."""

STREAMED_UNUSED = ("crop", "cutout")
"""Settings of a recipe that only images in memory have."""

READERS = ("folder", "tar", "wds")


@dataclass(frozen=True, kw_only=True)
class DataSettings(Section, section="data"):
    """Which images, and how they are split."""

    name: str = "cifar100"
    """Data set: digits, fashion-mnist, cifar10, cifar100, folder (your own class folders), prepared
    (a file that `blockqnn data` wrote), or imagenet (train/ and val/ of any size, read from disk
    while a network trains; for final training alone)."""
    root: str | None = None
    """Directory of the images, or the file of prepared ones; every data set but digits needs it."""
    download: bool = False
    """Download the data set by torchvision if it is not under root."""
    holdout: float = 0.1
    """Share of the training images held out, by class and seed, to measure the reward."""
    images: int | None = None
    """Training images to keep before the split, each class in proportion; null keeps all."""
    image_size: int | None = None
    """Side in pixels to which images of folder are resized once, and those of imagenet cut."""
    reader: str | None = None
    """Form of imagenet on disk: folder, tar or wds (WebDataset); null means folder."""
    loaders: int = 4
    """Processes that read the images of imagenet; 0 reads them in the training process."""

    def __post_init__(self) -> None:
        self.require("name", self.name in DATA_SETS, f"choose one of {', '.join(DATA_SETS)}")
        self.require("holdout", 0 < self.holdout < 1, "give more than 0, less than 1")
        some = self.images is None or self.images >= 2
        self.require("images", some, "give 2 or more, or null for all")
        if self.name == "digits":
            self.require("root", self.root is None, "digits is embedded; leave it out")
        elif self.name == "prepared":
            self.require("root", bool(self.root), "give the file that `blockqnn data` wrote")
        else:
            self.require("root", bool(self.root), f"give the directory where {self.name} lies")
        if self.name in ("digits", "folder", "prepared", "imagenet"):
            self.require_default(f"{self.name} has no download; leave it out", "download")
        if self.name in ("folder", "imagenet"):
            fits = 8 <= (self.image_size or 0) <= 1024
            self.require("image_size", fits, "give 8 to 1024 pixels")
        else:
            only = "only folder and imagenet are resized; leave it out"
            self.require("image_size", self.image_size is None, only)
        if self.streamed:
            self.require("images", self.images is None, "imagenet is read whole")
            known = self.reader is None or self.reader in READERS
            self.require("reader", known, f"choose one of {', '.join(READERS)}")
        else:
            self.require("reader", self.reader is None, "only imagenet has one; leave it out")
        self.require_least(0, "loaders")

    @property
    def streamed(self) -> bool:
        """Whether images are read from disk while the network trains, instead of once."""
        return self.name == "imagenet"
