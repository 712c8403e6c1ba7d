"""Prepared data sets: the same images and splits as their source, from a file of the same bytes."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_search import small_disk

from blockqnn.data import dataset as data
from blockqnn.data.archive import read_prepared
from blockqnn.data.prepare import prepare
from blockqnn.errors import SettingsError, UserError
from blockqnn.params import load_plan, load_settings
from blockqnn.settings import DataSettings

PARAMS = Path(__file__).parents[2] / "params.yaml"


def class_folders(root):
    """Two classes of eight images under train and three under val; no two images are alike."""
    for part, each in (("train", 8), ("val", 3)):
        for number, name in enumerate(("chat noir", "été")):
            place = root / part / name
            place.mkdir(parents=True)
            for image in range(each):
                colour = (100 * number + image, 10, 200 if part == "val" else 20)
                Image.new("RGB", (20, 16), colour).save(place / f"{image}.png")
    return root


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The prepared digits."""
    file = tmp_path_factory.mktemp("prepared") / "digits.npz"
    prepare(DataSettings(name="digits"), file)
    return file


def prepared(file, **changes):
    return DataSettings(name="prepared", root=str(file), **changes)


def same(one, other):
    """Whether two data sets have the same images in the same splits, names and all."""
    assert (one.name, one.classes) == (other.name, other.classes)
    for part in ("train", "held_out", "test"):
        assert torch.equal(getattr(one, part).images, getattr(other, part).images)
        assert torch.equal(getattr(one, part).labels, getattr(other, part).labels)
    assert torch.equal(one.mean, other.mean)
    return one.fingerprint == other.fingerprint


class TestReading:
    @pytest.mark.parametrize("split", [{}, {"holdout": 0.3}, {"holdout": 0.2, "images": 500}])
    def test_digits_are_split_as_without_the_file(self, digits, split):
        for seed in (0, 7):
            original = data.load(DataSettings(name="digits", **split), seed)
            assert same(data.load(prepared(digits, **split), seed), original)

    def test_class_folders_are_resized_once(self, tmp_path):
        folder = class_folders(tmp_path / "images")
        settings = DataSettings(name="folder", root=str(folder), image_size=8, holdout=0.25)
        original = data.load(settings, 1)
        prepare(settings, tmp_path / "made" / "animals.npz")
        shutil.rmtree(folder)
        again = data.load(prepared(tmp_path / "made" / "animals.npz", holdout=0.25), 1)
        assert same(again, original)
        assert again.classes == ("chat noir", "été")
        assert len(again.test) == 6

    def test_a_prepared_file_may_be_prepared_again(self, digits, tmp_path):
        prepare(prepared(digits), tmp_path / "again.npz")
        assert (tmp_path / "again.npz").read_bytes() == digits.read_bytes()


def test_a_plan_with_prepared_images_keeps_its_split(digits):
    """As dvc.yaml does it; `images` and `holdout` are those of the plan."""
    there = {"data.name": "prepared", "data.root": str(digits)}
    plan = load_plan(PARAMS, "cifar10", None, {"data.holdout": 0.25, "data.images": 900, **there})
    assert plan.data == prepared(digits, holdout=0.25, images=900)
    settings = load_settings(PARAMS, None, there)
    assert settings.data == prepared(digits, holdout=0.3)


class TestBytes:
    def test_made_twice_the_file_is_the_same(self, digits, tmp_path):
        prepare(DataSettings(name="digits", holdout=0.5, images=100), tmp_path / "other")
        assert (tmp_path / "other").read_bytes() == digits.read_bytes()

    def test_no_time_is_in_it(self, digits):
        with zipfile.ZipFile(digits) as archive:
            assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
            assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}

    def test_numpy_reads_it(self, digits):
        with np.load(digits, allow_pickle=False) as archive:
            assert archive["train_pixels"].shape == (1438, 8, 8, 1)
            assert archive["test_labels"].shape == (359,)
            assert archive["classes"].tolist() == list("0123456789")


class TestManifest:
    """Images that are read from disk while a network trains are described, not copied."""

    def manifest(self, root, to):
        prepare(DataSettings(name="imagenet", root=str(root), image_size=16), to)
        return json.loads(to.read_text())

    def test_counts_and_bytes(self, tmp_path):
        folder = class_folders(tmp_path / "images")
        written = self.manifest(folder, tmp_path / "images.json")
        assert written["classes"] == ["chat noir", "été"]
        for part, images in (("train", 16), ("val", 6)):
            files = list((folder / part).rglob("*.png"))
            assert written[part]["images"] == len(files) == images
            assert written[part]["bytes"] == sum(file.stat().st_size for file in files)

    def test_it_changes_with_the_images_and_not_with_the_place(self, tmp_path):
        folder = class_folders(tmp_path / "images")
        before = self.manifest(folder, tmp_path / "before.json")
        moved = folder.rename(tmp_path / "moved")
        assert self.manifest(moved, tmp_path / "moved.json") == before
        (moved / "val" / "été" / "0.png").rename(moved / "val" / "été" / "9.png")
        after = self.manifest(moved, tmp_path / "after.json")
        assert after["train"] == before["train"]
        assert after["val"]["sha256"] != before["val"]["sha256"]

    def test_it_is_no_prepared_data_set(self, tmp_path):
        self.manifest(class_folders(tmp_path / "images"), tmp_path / "images.json")
        with pytest.raises(SettingsError, match="not a whole file"):
            data.load(prepared(tmp_path / "images.json"), 0)


class TestDamage:
    def refused(self, file, match):
        with pytest.raises(SettingsError, match=match) as caught:
            data.load(prepared(file), 0)
        assert str(caught.value).startswith(f"data.root is {str(file)!r}: ")
        assert "\n" not in str(caught.value) and "blockqnn data" in str(caught.value)

    def test_no_file(self, tmp_path):
        self.refused(tmp_path / "none.npz", "no such file")

    def test_a_directory(self, tmp_path):
        self.refused(tmp_path, "not a whole file")

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.9999])
    def test_cut_short(self, digits, tmp_path, share):
        content = digits.read_bytes()
        (tmp_path / "cut.npz").write_bytes(content[: int(share * len(content))])
        self.refused(tmp_path / "cut.npz", "not a whole file")

    def test_one_bit_anywhere(self, digits, tmp_path):
        content = digits.read_bytes()
        original = data.load(prepared(digits), 0)
        refused = 0
        rng = np.random.default_rng(0)
        for place in rng.integers(len(content), size=150):
            damaged = bytearray(content)
            damaged[place] ^= 1 << int(rng.integers(8))
            (tmp_path / "flip.npz").write_bytes(damaged)
            try:  # a bit that stands for nothing, an entry's permissions say, may be wrong
                assert same(data.load(prepared(tmp_path / "flip.npz"), 0), original)
            except SettingsError:
                refused += 1
        assert refused > 140

    @pytest.mark.parametrize("content", [b"", b"hello\n", b"\x93NUMPY garbage", b"PK\x03\x04"])
    def test_something_else(self, tmp_path, content):
        (tmp_path / "other.npz").write_bytes(content)
        self.refused(tmp_path / "other.npz", "not a whole file")

    def test_another_archive(self, tmp_path):
        np.savez(tmp_path / "weights.npz", weights=np.zeros(3))
        self.refused(tmp_path / "weights.npz", "not a whole file")
        np.save(tmp_path / "weights.npy", np.zeros(3))
        self.refused(tmp_path / "weights.npy", "single array")

    def test_a_pickle_is_never_loaded(self, digits, tmp_path):
        with np.load(digits) as archive:
            arrays = dict(archive)
        arrays["classes"] = np.array([{"a": 1}], dtype=object)
        np.savez(tmp_path / "pickled.npz", **arrays)
        self.refused(tmp_path / "pickled.npz", "allow_pickle")

    @pytest.mark.parametrize(
        "change",
        [
            {"format": np.array("blockqnn images 9")},
            {"train_labels": np.zeros(3, np.int64)},
            {"test_labels": np.full(359, 10)},
            {"test_labels": np.full(359, -1)},
            {"train_pixels": np.zeros((1438, 8, 8, 1), np.float32)},
            {"train_pixels": np.zeros((1438, 64), np.uint8)},
        ],
    )
    def test_arrays_that_do_not_belong_together(self, digits, tmp_path, change):
        with np.load(digits) as archive:
            arrays = {**archive, **change}
        np.savez(tmp_path / "odd.npz", **arrays)
        self.refused(tmp_path / "odd.npz", "format is|do not belong|not those of its classes")


def test_a_full_disk_leaves_the_old_file(digits, tmp_path):
    with small_disk(tmp_path / "small", 96) as place:
        (place / "digits.npz").write_bytes(b"old")
        with pytest.raises(UserError, match=r"cannot write .*digits\.npz .*No space left"):
            prepare(DataSettings(name="digits"), place / "digits.npz")
        assert (place / "digits.npz").read_bytes() == b"old"
        assert len(list(place.iterdir())) == 1


def test_a_missing_data_set_says_so(tmp_path):
    with pytest.raises(SettingsError, match=r"data\.download=true"):
        prepare(DataSettings(name="cifar10", root=str(tmp_path)), tmp_path / "cifar10.npz")
    assert not (tmp_path / "cifar10.npz").exists()


def test_the_name_is_the_original_one(digits):
    assert read_prepared(digits).name == "digits"
