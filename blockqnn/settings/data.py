"""Settings of the images, the section `data` of params.yaml."""

from dataclasses import dataclass

from blockqnn.settings.checks import Section, require

DATA_SETS = ("digits", "fashion-mnist", "cifar10", "cifar100", "folder", "prepared", "imagenet")

IN_MEMORY_UNUSED = ("auto_augment", "random_erasing", "augment_repeats")
"""Settings of a recipe that only streamed images have."""

READERS = ("folder", "tar", "wds")


@dataclass(frozen=True, kw_only=True)
class DataSettings(Section):
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
    """Share of the training images that are held out to measure the reward, by class and by
    seed."""
    images: int | None = None
    """Training images to keep before the split, each class in proportion; null keeps all."""
    image_size: int | None = None
    """Side of the images in pixels: those of a folder are resized to it once, those of imagenet are
    cut to it each time."""
    reader: str | None = None
    """Form of imagenet on disk: folder, tar or wds (WebDataset); null means folder."""
    loaders: int = 4
    """Processes that read the images of imagenet; 0 reads them in the training process."""

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
