"""Class folders, tar files and shards of a few small images that tests share.

`python tests/tiny_images.py DIRECTORY` reads them with a loader process that gets a signal.
"""

import io
import multiprocessing
import os
import random
import signal
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from blockqnn.data.feed import Share
from blockqnn.data.streamed.stream import open_stream
from blockqnn.data.streamed.stream_feed import StreamFeed
from blockqnn.settings import DataSettings, Recipe

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
CLASSES = ("n01", "n02", "n10")


def plain(split, label, number):
    """An image of one colour of its own, which no crop or mirroring changes."""
    return Image.new("RGB", (40 + number, 30), (80 * label, 8 * number, 100 * (split == "val")))


def noisy(split, label, number):
    """Noise around a colour of the class."""
    noise = np.random.default_rng([label, number, split == "val"]).normal(0, 40, (36, 50, 3))
    colour = 200 * np.eye(3)[label]
    return Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8))


def tree(root, image=plain, suffix="png", train=10, val=4):
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image(split, label, number).save(folder / f"{name}_{number}.{suffix}")
    return root


def settings(root, **more):
    values = {"image_size": 16, "loaders": 0, "holdout": 0.2, **more}
    return DataSettings(name="imagenet", root=str(root), **values)


def feed(root, *, batch=10, seed=7, part=Share(), everything=False, data=None, **recipe):  # noqa: B008
    stream = open_stream(settings(root, **(data or {})), 0)
    recipe = Recipe(batch=batch, **recipe)
    return StreamFeed(stream, recipe, seed, CPU, part, everything)


def pixels(images):
    """Normalised images as bytes again."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((images * std + mean) * 255).round().to(torch.uint8)


def numbers(images):
    """Which images of one colour these are: pairs of class and number."""
    corners = pixels(images)[:, :, 0, 0].tolist()
    return [(red // 80, green // 8) for red, green, _ in corners]


def same(one, other):
    return len(one) == len(other) and all(
        a.size == b.size and torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        for a, b in zip(one, other, strict=True)
    )


def pack(path, files):
    """A tar file of pairs of a name and bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def files_of(folder):
    return [
        (file.relative_to(folder).as_posix(), file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]


def shards(root, source, each=6):
    """WebDataset shards of the images in class folders, mixed, as their format has it."""
    for split in ("train", "val"):
        files = files_of(source / split)
        random.Random(0).shuffle(files)
        for number, start in enumerate(range(0, len(files), each)):
            members = []
            for name, content in files[start : start + each]:
                label = CLASSES.index(name.split("/")[0])
                members += [(f"{Path(name).stem}.png", content)]
                members += [(f"{Path(name).stem}.cls", str(label).encode())]
            pack(root / f"{split}-{number:04}.tar", members)
    return root


def signal_a_loader(root):
    """Print how many batches come after all when a loader gets SIGTERM, and wait to be killed."""
    batches = feed(root, batch=4, data={"loaders": 1}).batches(0)
    next(batches)
    [loader] = multiprocessing.active_children()
    os.kill(loader.pid, signal.SIGTERM)
    print(sum(1 for _ in batches), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    signal_a_loader(sys.argv[1])
