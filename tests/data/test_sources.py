"""Sources of images: folders of real files and what can be wrong with them, missing data sets."""

import os
import shutil

import pytest
from PIL import Image

from blockqnn.data import dataset as data
from blockqnn.data import folder as class_folders
from blockqnn.data.read import read
from blockqnn.errors import SettingsError
from blockqnn.settings import DataSettings


def rows(image_set):
    """The images of a set as bytes, to compare sets by."""
    return [image.numpy().tobytes() for image in image_set.images]


def save(path, value, mode="RGB", size=(12, 10), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)


def folder(root, each=6, classes=("cat", "dog"), under=""):
    for number, name in enumerate(classes):
        for image in range(each):
            save(root / under / name / f"{image}.png", (100 * number + image, 10, 20))
    return root


def load_folder(root, size=8, seed=0, holdout=0.3):
    settings = DataSettings(name="folder", root=str(root), image_size=size, holdout=holdout)
    return data.load(settings, seed)


class TestFolder:
    def test_class_folders(self, tmp_path):
        split = load_folder(folder(tmp_path, each=10))
        assert split.classes == ("cat", "dog")
        assert (len(split.train), len(split.held_out), len(split.test)) == (11, 5, 4)
        assert split.test.labels.bincount().tolist() == [2, 2]
        assert split.train.images.shape[1:] == (3, 8, 8)
        for part in (split.train, split.held_out, split.test):
            assert ((part.images[:, 0, 0, 0] >= 100).long() == part.labels).all()
        other = load_folder(tmp_path, seed=5)
        assert rows(other.test) == rows(split.test)
        assert rows(other.held_out) != rows(split.held_out)

    @pytest.mark.parametrize("test", ["test", "val"])
    def test_a_test_set_of_its_own(self, tmp_path, test):
        folder(tmp_path, each=5, under="train")
        folder(tmp_path, each=2, under=test)
        split = load_folder(tmp_path)
        assert split.classes == ("cat", "dog")
        assert (len(split.train), len(split.held_out), len(split.test)) == (7, 3, 4)

    def test_train_may_be_a_class(self, tmp_path):
        assert load_folder(folder(tmp_path, classes=("bus", "train"))).classes == ("bus", "train")

    def test_different_classes_in_train_and_test(self, tmp_path):
        folder(tmp_path, under="train", classes=("cat", "dog"))
        folder(tmp_path, under="test", classes=("cat", "cow"))
        with pytest.raises(SettingsError, match="the same class folders, but cow, dog"):
            load_folder(tmp_path)

    def test_no_image_is_stretched(self, tmp_path):
        for name in ("cat", "dog"):
            for number in range(3):
                path = tmp_path / name / f"{number}.png"
                save(path, (0, 0, 0), size=(30, 10))
                with Image.open(path) as image:
                    image.paste((255, 255, 255), (10, 0, 20, 10))  # the middle third
                    image.save(path)
        source = read(DataSettings(name="folder", root=str(tmp_path), image_size=10))
        assert source.train_pixels.min() == 255  # the centre square and nothing else

    def test_floating_point_pixels_are_refused(self, tmp_path):
        save(folder(tmp_path) / "cat" / "deep.tiff", 0.5, "F")
        with pytest.raises(SettingsError, match=r"deep\.tiff is not a readable image .*8 or 16"):
            load_folder(tmp_path)

    def test_hidden_files_and_folders_are_not_images(self, tmp_path):
        folder(tmp_path)
        save(tmp_path / ".thumbnails" / "0.png", (1, 1, 1))
        save(tmp_path / "cat" / ".ipynb_checkpoints" / "0-checkpoint.png", (1, 1, 1))
        (tmp_path / "cat" / "._0.png").write_bytes(b"resource fork")
        (tmp_path / "dog" / "notes.txt").write_text("not an image")
        split = load_folder(tmp_path)
        assert split.classes == ("cat", "dog")
        assert len(split.train) + len(split.held_out) + len(split.test) == 12

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda root: (root / "cat" / "x.png").write_bytes(b"junk"), r"x\.png is not a read"),
            (
                lambda root: os.truncate(root / "cat" / "0.png", 40),
                r"0\.png is not a readable image .* mend or remove it",
            ),
            (
                lambda root: (root / "cat" / "x.png").symlink_to(root / "nowhere.png"),
                r"x\.png is not a readable image .*No such file",
            ),
            (
                lambda root: os.mkfifo(root / "cat" / "0a.png"),
                r"0a\.png is not a readable image \(it is no file\)",
            ),
            (lambda root: (root / "cat").rename(root / "c\nat"), r"folder called 'c\\nat': give"),
            (
                lambda root: os.rename(root / "cat", os.fsencode(root) + b"/\xff"),
                r"folder called '\\udcff': give it a name in UTF-8",
            ),
            (lambda root: (root / "cow").mkdir(), r"has no images of class cow: put.*\.png"),
            (lambda root: shutil.rmtree(root / "dog"), "it has 1 class folders; give .*two class"),
            (lambda root: shutil.rmtree(root), r"No such file.*give a directory with one folder"),
            (
                lambda root: [(root / "dog" / f"{n}.png").unlink() for n in range(4)],
                "class 'dog' has 2 images: give 3 or more",
            ),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, damage, message):
        root = folder(tmp_path / "images")
        damage(root)
        with pytest.raises(SettingsError, match=message):
            load_folder(root)

    def test_a_file_whose_name_is_no_text(self, tmp_path):
        root = folder(tmp_path / "images")
        os.rename(root / "cat" / "0.png", os.fsencode(root / "cat") + b"/\xff.png")
        assert len(load_folder(root).train)

    def test_only_hidden_folders(self, tmp_path):
        save(tmp_path / ".git" / "0.png", (1, 1, 1))
        with pytest.raises(SettingsError, match="it has 0 class folders"):
            load_folder(tmp_path)


class TestFolderCache:
    def test_a_second_load_reads_no_image(self, tmp_path, monkeypatch):
        first = load_folder(folder(tmp_path))
        monkeypatch.setattr(class_folders, "_resized", lambda file, size: pytest.fail(str(file)))
        second = load_folder(tmp_path)
        assert second.fingerprint == first.fingerprint
        assert second.classes == first.classes
        assert rows(second.train) == rows(first.train)

    def test_another_size_is_another_cache(self, tmp_path):
        load_folder(folder(tmp_path))
        assert load_folder(tmp_path, size=9).image_size == 9

    @pytest.mark.parametrize(
        "change",
        [
            lambda root: save(root / "cat" / "0.png", (200, 1, 1)),
            lambda root: save(root / "cat" / "new.png", (200, 1, 1)),
            lambda root: (root / "cat" / "0.png").unlink(),
            lambda root: (root / "cat" / "0.png").rename(root / "dog" / "9.png"),
        ],
        ids=["changed", "added", "removed", "moved"],
    )
    def test_a_changed_file_is_noticed(self, tmp_path, change):
        before = load_folder(folder(tmp_path))
        change(tmp_path)
        after = load_folder(tmp_path)
        assert after.fingerprint != before.fingerprint
        shutil.rmtree(tmp_path / ".blockqnn")
        assert load_folder(tmp_path).fingerprint == after.fingerprint

    @pytest.mark.parametrize("content", [b"", b"junk", None], ids=["empty", "junk", "cut"])
    def test_a_damaged_cache_is_made_anew(self, tmp_path, content):
        before = load_folder(folder(tmp_path))
        (cache,) = (tmp_path / ".blockqnn").iterdir()
        cache.write_bytes(cache.read_bytes()[:-7] if content is None else content)
        assert load_folder(tmp_path).fingerprint == before.fingerprint

    def test_a_directory_that_cannot_be_written(self, tmp_path):
        expected = load_folder(folder(tmp_path / "writable")).fingerprint
        root = folder(tmp_path / "images")
        # for root, who may write anywhere, a file in the place of the directory does the same
        (root / ".blockqnn").write_text("")
        root.chmod(0o555)
        try:
            assert load_folder(root).fingerprint == expected
        finally:
            root.chmod(0o755)


class TestTorchvision:
    @pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist"])
    def test_files_that_are_not_there(self, tmp_path, name):
        with pytest.raises(SettingsError) as caught:
            data.load(DataSettings(name=name, root=str(tmp_path / "none")), seed=0)
        message = str(caught.value)
        assert message.startswith(f"data.root is '{tmp_path}/none': {name} is not there or not")
        assert "set data.download=true to fetch it" in message

    def test_files_of_something_else(self, tmp_path):
        raw = tmp_path / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for part in ("train", "t10k"):
            (raw / f"{part}-images-idx3-ubyte").write_bytes(b"junk" * 50)
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"")
        with pytest.raises(SettingsError, match="fashion-mnist is not there or not whole"):
            data.load(DataSettings(name="fashion-mnist", root=str(tmp_path)), seed=0)
