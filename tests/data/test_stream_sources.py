"""Where streamed images lie: folders and what can be wrong with them, tar files, shards."""

import gc
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_images import (
    CLASSES,
    CPU,
    feed,
    files_of,
    noisy,
    numbers,
    pack,
    same,
    settings,
    shards,
    tree,
)

from blockqnn.data.feed import Share
from blockqnn.data.streamed.stream import open_stream
from blockqnn.errors import SettingsError, UserError


@pytest.fixture(scope="module")
def plain_tree(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def noisy_tree(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("noisy"), noisy, "JPEG")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


class TestMistakes:
    @pytest.mark.parametrize(
        ("mistake", "sentence"),
        [
            (lambda root: shutil.rmtree(root), "there is no such directory; give the one that"),
            (
                lambda root: shutil.rmtree(root / "val"),
                "it has train, but neither test nor val beside it",
            ),
            (
                lambda root: shutil.rmtree(root / "train"),
                "it has no train, but val has; put training images",
            ),
            (
                lambda root: (root / "val" / "n10").rename(root / "val" / "n11"),
                r"train and \S+val must have the same class folders, but n10 is in the first only",
            ),
            (
                lambda root: [(root / "val" / f"x{n}").mkdir() for n in range(7)],
                "val has no images of class x0, x1, x2, x3, x4 and 2 more: put images",
            ),
            (
                lambda root: [file.unlink() for file in (root / "train" / "n02").iterdir()],
                r"train has no images of class n02: put images \(.jpg, .*.png, .*\) in the",
            ),
            (
                lambda root: [
                    shutil.rmtree(root / s / c) for s in ("train", "val") for c in CLASSES[1:]
                ],
                "copy/train: it has 1 class folders; .*two classes or more",
            ),
            (
                lambda root: write(root / "val" / "n02" / "n02_0.png", b"no image"),
                r"val/n02/n02_0.png is not a readable image \(of no known format\): mend or",
            ),
            (
                lambda root: (
                    (root / "train" / "n10" / "n10_9.png").symlink_to("nowhere")
                    if (root / "train" / "n10" / "n10_9.png").unlink() is None
                    else None
                ),
                r"train/n10/n10_9.png cannot be read \(No such file or directory\)",
            ),
            (
                lambda root: os.mkfifo(root / "train" / "n01" / "0.png"),
                r"train/n01/0.png is not a readable image \(it is no file\)",
            ),
            (
                lambda root: os.mkfifo(root / "val" / "n10" / "z.png"),
                r"val/n10/z.png is not a readable image \(it is no file\)",
            ),
            (
                lambda root: os.rename(root / "val" / "n10", os.fsencode(root / "val") + b"/\xff"),
                r"val has a class folder called '\\udcff': give it a name in UTF-8",
            ),
        ],
    )
    def test_one_sentence(self, plain_tree, tmp_path, mistake, sentence):
        root = shutil.copytree(plain_tree, tmp_path / "copy")
        mistake(root)
        with pytest.raises(SettingsError, match=sentence) as error:
            open_stream(settings(root), 0)
        assert "\n" not in str(error.value)

    def test_the_flat_validation_folder_of_ilsvrc(self, plain_tree, tmp_path):
        root = shutil.copytree(plain_tree, tmp_path / "copy")
        for file in list((root / "val").glob("*/*.png")):
            file.rename(root / "val" / file.name)
        for name in CLASSES:
            (root / "val" / name).rmdir()
        with pytest.raises(SettingsError, match="val has 0 class folders; .*ILSVRC.* sort them"):
            open_stream(settings(root), 0)

    def test_hidden_files_are_no_images(self, plain_tree, tmp_path):
        root = shutil.copytree(plain_tree, tmp_path / "copy")
        write(root / "train" / "n01" / "._n01_0.png", b"made by a Macintosh")
        (root / "train" / ".cache").mkdir()
        assert open_stream(settings(root), 0).counts(True) == (30, 0)

    def test_other_formats_are_not_passed_over(self, plain_tree, tmp_path):
        root = shutil.copytree(plain_tree, tmp_path / "copy")
        for kind in ("webp", "bmp"):
            Image.new("RGB", (40, 40)).save(root / "train" / "n01" / f"x.{kind}")
        assert open_stream(settings(root), 0).counts(True) == (32, 0)

    def test_unknown_policy(self, plain_tree):
        with pytest.raises(SettingsError, match="^recipe.auto_augment is 'rend-m7': timm knows no"):
            feed(plain_tree, auto_augment="rend-m7")


class TestTar:
    @pytest.fixture(params=["one", "classes"])
    def tars(self, request, noisy_tree, tmp_path):
        for split in ("train", "val"):
            if request.param == "one":
                pack(tmp_path / f"{split}.tar", files_of(noisy_tree / split))
            else:
                for name in CLASSES:
                    path = tmp_path / split / f"{name}.tar"
                    pack(path, files_of(noisy_tree / split / name))
        return tmp_path

    def test_gives_what_folders_give(self, tars, noisy_tree):
        tar = {"reader": "tar"}
        assert same(list(feed(tars, data=tar).batches(0)), list(feed(noisy_tree).batches(0)))
        tested = list(open_stream(settings(tars, **tar), 0).test_batches(CPU, 24, batch=20))
        expected = list(open_stream(settings(noisy_tree), 0).test_batches(CPU, 24, batch=20))
        assert torch.equal(tested[0][0], expected[0][0])
        assert not list(tars.rglob("*.pickle"))

    def test_can_be_sent_to_another_process(self, tars):
        images = open_stream(settings(tars, reader="tar"), 0).train
        before = np.asarray(images.image(17))  # leaves a tar file open
        assert (np.asarray(pickle.loads(pickle.dumps(images)).image(17)) == before).all()

    def test_mistakes(self, noisy_tree, tmp_path):
        tar = settings(tmp_path, reader="tar")
        with pytest.raises(SettingsError, match=r"has neither train.tar nor train/\*.tar"):
            open_stream(tar, 0)
        images = files_of(noisy_tree / "train")
        pack(tmp_path / "val.tar", images)
        pack(tmp_path / "train.tar", [(Path(name).name, content) for name, content in images])
        with pytest.raises(SettingsError, match="train.tar has images of 1 classes, or without"):
            open_stream(tar, 0)
        broken = [(images[0][0], b"no image"), *images[1:]]
        pack(tmp_path / "train.tar", broken)
        with pytest.raises(SettingsError, match=r"train.tar/n01/n01_0.JPEG is not a readable im"):
            open_stream(tar, 0)
        (tmp_path / "train.tar").write_bytes(b"no tar file")
        with pytest.raises(SettingsError, match="train.tar is not a readable tar file of images"):
            open_stream(tar, 0)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves that to us
class TestShards:
    WDS = {"reader": "wds"}

    @pytest.fixture(autouse=True)
    def collected(self):
        yield
        gc.collect()

    def test_an_epoch(self, plain_tree, tmp_path):
        train = feed(shards(tmp_path, plain_tree), batch=6, everything=True, data=self.WDS)
        assert (train.classes, train.train_images, train.steps()) == (("0", "1", "2"), 30, 5)
        epochs = []
        for epoch in (0, 1, 0):
            batches = list(train.batches(epoch))
            assert [len(batch.labels) for batch in batches] == [6] * 5
            epochs.append([number for batch in batches for number in numbers(batch.images)])
            labels = torch.cat([batch.labels for batch in batches]).tolist()
            assert labels == [label for label, _ in epochs[-1]]
        assert len(set(epochs[0])) == 30
        assert epochs[0] == epochs[2] != epochs[1]

    def test_timms_list_of_shards(self, plain_tree, tmp_path):
        root = shards(tmp_path, plain_tree)
        names = sorted(path.name for path in root.iterdir())
        listed = {
            "train": {"filenames": names[:4], "num_samples": 24},
            "validation": {"filenames": names[5:], "num_samples": 12},
        }
        for split, each in listed.items():
            each |= {"name": split, "shard_lengths": [6] * len(each["filenames"])}
        info = root / "_info.json"
        info.write_text(json.dumps({"splits": listed}))
        stream = open_stream(settings(root, reader="wds"), 0)
        assert (stream.counts(True), len(stream.test)) == ((24, 0), 12)
        (root / names[5]).unlink()
        with pytest.raises(SettingsError, match="val-0000.tar is not there, but _info.json names"):
            open_stream(settings(root, reader="wds"), 0)
        info.write_text("{}")
        with pytest.raises(SettingsError, match="_info.json is not what timm writes about shards"):
            open_stream(settings(root, reader="wds"), 0)

    def test_resuming_reads_on(self, noisy_tree, tmp_path):
        root = shards(tmp_path, noisy_tree)
        recipe = {"batch": 6, "everything": True, "flip": True, "data": self.WDS}
        whole = list(feed(root, **recipe).batches(1))
        assert same(list(feed(root, **recipe).batches(1, first=3)), whole[3:])

    def test_processes_read_different_shards(self, plain_tree, tmp_path):
        root = shards(tmp_path, plain_tree, each=5)  # six shards
        found = []
        for rank in (0, 1):
            data = {"batch": 10, "everything": True, "data": self.WDS, "part": Share(rank, 2)}
            batches = list(feed(root, **data).batches(0))
            assert [batch.size for batch in batches] == [10, 10, 10]
            found += [number for batch in batches for number in numbers(batch.images)]
        assert len(set(found)) == 30

    def test_test_images(self, noisy_tree, tmp_path):
        root = shards(tmp_path, noisy_tree)
        (root / "classes.txt").write_text("one\ntwo\nten\n")
        stream = open_stream(settings(root, reader="wds"), 0)
        assert stream.classes == ("one", "two", "ten")
        expected = list(open_stream(settings(noisy_tree), 0).test_batches(CPU, 24))[0]
        images, labels = map(torch.cat, zip(*stream.test_batches(CPU, 24, batch=5), strict=True))
        assert labels.bincount().tolist() == [4, 4, 4]
        for image, label in zip(images, labels, strict=True):
            assert any(
                torch.equal(image, other)
                for other in expected[0][4 * int(label) : 4 * int(label) + 4]
            )

    def test_mistakes(self, plain_tree, tmp_path):
        with pytest.raises(SettingsError, match=r"has neither train-\*.tar nor train/\*.tar nor"):
            open_stream(settings(tmp_path, reader="wds"), 0)
        root = shards(tmp_path, plain_tree)
        with pytest.raises(SettingsError, match="no image can be held out"):
            feed(root, data=self.WDS)
        with pytest.raises(SettingsError, match="^recipe.augment_repeats is 3: shards are read"):
            feed(root, data=self.WDS, everything=True, augment_repeats=3)
        with pytest.raises(SettingsError, match="^recipe.batch is 31: there are 30"):
            feed(root, data=self.WDS, everything=True, batch=31)
        with pytest.raises(SettingsError, match="5 training shards for 6 processes"):
            feed(root, data=self.WDS, everything=True, part=Share(0, 6))

    def test_a_test_image_that_cannot_be_read_is_not_passed_over(self, plain_tree, tmp_path):
        root = shards(tmp_path, plain_tree)
        pack(root / "val-0001.tar", [("x.png", b"no image"), ("x.cls", b"0")])
        stream = open_stream(settings(root, reader="wds"), 0)
        with pytest.raises(UserError, match="has 7 test images, but 6 could be read"):
            list(stream.test_batches(CPU))
