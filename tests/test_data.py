"""Data: splits, fingerprints, augmentation image by image, folders of real files, missing files."""

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from blockqnn import data, sources
from blockqnn.config import DataSettings, Recipe
from blockqnn.errors import SettingsError
from blockqnn.sources import Source

DIGITS = DataSettings(name="digits", images=300, holdout=0.3)


@pytest.fixture(scope="module")
def digits():
    return data.load(DIGITS, seed=0)


def load_source(monkeypatch, source, seed=0, **settings):
    """What `data.load` makes of a source given by the test."""
    monkeypatch.setattr(sources, "read", lambda settings: source)
    return data.load(DataSettings(name="digits", **{"holdout": 0.25, **settings}), seed)


def random_source(classes=4, each=20, seed=0, shape=(6, 6, 3)):
    rng = np.random.default_rng(seed)

    def images(count):
        labels = np.arange(count, dtype=np.int64) % classes
        return rng.integers(0, 256, (count, *shape), dtype=np.uint8), labels

    names = tuple(f"class {number}" for number in range(classes))
    return Source(names, *images(classes * each), *images(classes * 5))


def rows(image_set):
    """The images of a set as bytes, to compare sets by."""
    return [image.numpy().tobytes() for image in image_set.images]


class TestSplit:
    def test_digits(self):
        whole = data.load(DataSettings(name="digits"), seed=0)
        assert len(whole.train) + len(whole.held_out) + len(whole.test) == 1797
        assert len(whole.test) == round(0.2 * 1797)
        assert len(whole.held_out) == round(0.1 * (1797 - 359))
        assert whole.classes == tuple("0123456789")
        assert whole.train.images.shape[1:] == (1, 8, 8)
        assert (whole.in_channels, whole.image_size) == (1, 8)
        assert whole.train.images.dtype == torch.uint8
        assert whole.train.labels.dtype == torch.int64
        assert int(whole.train.images.max()) == 255  # 16 grey values, spread over the byte

    def test_sizes_follow_the_settings(self, digits):
        assert (len(digits.train), len(digits.held_out), len(digits.test)) == (210, 90, 359)

    def test_no_image_is_on_two_sides(self, monkeypatch):
        source = random_source()
        split = load_source(monkeypatch, source)
        train, held_out, test = (rows(getattr(split, n)) for n in ("train", "held_out", "test"))
        assert len(train) == 60
        assert len(held_out) == 20
        assert len({*train, *held_out, *test}) == 60 + 20 + 20
        assert {*train, *held_out} == {image.tobytes() for image in channels_first(source)}

    def test_images_keep_their_labels(self, monkeypatch):
        source = random_source()
        label_of = dict(
            zip(
                [image.tobytes() for image in channels_first(source)],
                source.train_labels.tolist(),
                strict=True,
            )
        )
        split = load_source(monkeypatch, source)
        for part in (split.train, split.held_out):
            assert [label_of[image] for image in rows(part)] == part.labels.tolist()

    def test_classes_are_in_proportion(self, monkeypatch):
        source = random_source(classes=2, each=60)
        source.train_labels[:] = np.arange(120) % 3 == 0  # 80 of class 0, 40 of class 1
        split = load_source(monkeypatch, source, holdout=0.25)
        assert split.held_out.labels.bincount().tolist() == [20, 10]
        assert split.train.labels.bincount().tolist() == [60, 30]

    def test_fewer_images_are_in_proportion_too(self, monkeypatch):
        source = random_source(classes=2, each=60)
        source.train_labels[:] = np.arange(120) % 3 == 0
        split = load_source(monkeypatch, source, holdout=0.5, images=60)
        assert split.held_out.labels.bincount().tolist() == [20, 10]
        assert split.train.labels.bincount().tolist() == [20, 10]

    def test_the_seed_moves_the_split_and_nothing_else(self, digits):
        again, other = data.load(DIGITS, seed=0), data.load(DIGITS, seed=1)
        assert rows(again.train) == rows(digits.train)
        assert rows(again.held_out) == rows(digits.held_out)
        assert rows(other.held_out) != rows(digits.held_out)
        assert rows(other.test) == rows(digits.test)
        assert torch.equal(other.test.labels, digits.test.labels)

    def test_every_class_is_held_out_however_small_the_share(self, monkeypatch):
        split = load_source(monkeypatch, random_source(), holdout=0.001)
        assert split.held_out.labels.bincount().tolist() == [1, 1, 1, 1]

    @pytest.mark.parametrize(
        "settings", [{"images": 3}, {"images": 79}, {"holdout": 0.99}], ids=str
    )
    def test_too_few_to_split(self, monkeypatch, settings):
        with pytest.raises(
            SettingsError, match=r"cannot be split: 80 images in 4 classes.*give at"
        ):
            load_source(monkeypatch, random_source(), **settings)

    def test_a_class_of_one(self, monkeypatch):
        source = random_source(classes=2)
        source.train_labels[:] = np.arange(40) == 7
        with pytest.raises(SettingsError, match="the smallest of 1, .*at least 2 images in every"):
            load_source(monkeypatch, source)


def channels_first(source):
    return np.ascontiguousarray(source.train_pixels.transpose(0, 3, 1, 2))


class TestFingerprint:
    def test_it_is_stable(self, monkeypatch):
        first = load_source(monkeypatch, random_source()).fingerprint
        assert load_source(monkeypatch, random_source()).fingerprint == first
        assert len(first) == 32

    @pytest.mark.parametrize(
        "change",
        [
            "train_pixels",
            "train_labels",
            "test_pixels",
            "test_labels",
            "classes",
            "seed",
            "holdout",
        ],
    )
    def test_any_change_changes_it(self, monkeypatch, change):
        source, settings = random_source(), {}
        before = load_source(monkeypatch, source).fingerprint
        if change == "classes":
            source = Source(("other", *source.classes[1:]), *list(vars(source).values())[1:])
        elif change in ("seed", "holdout"):
            settings = {"seed": 1} if change == "seed" else {"holdout": 0.3}
        elif change.endswith("pixels"):
            getattr(source, change)[-1, 5, 5, 2] ^= 1
        else:  # two labels change places: the counts stay
            labels = getattr(source, change)
            labels[[0, 1]] = labels[[1, 0]]
        assert load_source(monkeypatch, source, **settings).fingerprint != before

    def test_of_the_digits(self, digits):
        assert digits.fingerprint == data.load(DIGITS, seed=0).fingerprint
        assert digits.fingerprint != data.load(DIGITS, seed=1).fingerprint


class TestNormalisation:
    def test_mean_and_deviation_are_of_the_images_trained_on(self, monkeypatch):
        split = load_source(monkeypatch, random_source())
        pixels = split.train.images.numpy().astype(np.float64)
        np.testing.assert_allclose(split.mean.ravel(), pixels.mean((0, 2, 3)), rtol=1e-6)
        np.testing.assert_allclose(split.std.ravel(), pixels.std((0, 2, 3)), rtol=1e-6)

    def test_normalised(self, monkeypatch):
        split = load_source(monkeypatch, random_source())
        before = split.train.images.clone()
        values = split.normalised(split.train.images)
        assert torch.equal(split.train.images, before)
        assert values.dtype == torch.float32
        assert values.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_allclose(values.mean((0, 2, 3)), 0, atol=1e-5)
        np.testing.assert_allclose(values.std((0, 2, 3), correction=0), 1, atol=1e-5)

    def test_a_constant_channel_is_not_divided_by_zero(self, monkeypatch):
        source = random_source()
        source.train_pixels[..., 1] = 200
        split = load_source(monkeypatch, source)
        values = split.normalised(split.held_out.images)
        assert torch.isfinite(values).all()
        assert (values[:, 1] == 0).all()


def images(count=40, channels=3, size=9):
    """Distinct values everywhere, none of them 0."""
    values = torch.arange(1, count * channels * size * size + 1, dtype=torch.float32)
    return values.view(count, channels, size, size)


def augmented(batch, seed=0, **recipe):
    return data.augment(batch, Recipe(**recipe), torch.Generator().manual_seed(seed))


class TestAugmentation:
    """Every augmented image is one that a slow reference can make; every one of those turns up."""

    def test_nothing_asked_nothing_done(self):
        assert torch.equal(augmented(images()), images())

    def test_crop(self):
        batch, pad = images(size=6), 2
        offsets = set()
        for image, result in zip(batch, augmented(batch, crop=pad), strict=True):
            padded = np.pad(image.numpy(), ((0, 0), (pad, pad), (pad, pad)))
            made = [
                (row, column)
                for row in range(2 * pad + 1)
                for column in range(2 * pad + 1)
                if (padded[:, row : row + 6, column : column + 6] == result.numpy()).all()
            ]
            assert len(made) == 1
            offsets.update(made)
        for axis in (0, 1):
            assert {offset[axis] for offset in offsets} == set(range(5))
        assert len(offsets) > 15  # rows and columns are drawn apart

    def test_flip(self):
        batch = images(count=200)
        result = augmented(batch, flip=True)
        flipped = [
            bool((image.numpy()[..., ::-1] == after.numpy()).all())
            for image, after in zip(batch, result, strict=True)
        ]
        kept = [torch.equal(image, after) for image, after in zip(batch, result, strict=True)]
        assert all(a != b for a, b in zip(flipped, kept, strict=True))
        assert 70 < sum(flipped) < 130

    @pytest.mark.parametrize("side", [1, 3, 4])
    def test_cutout(self, side):
        batch, size = images(count=200), 9
        corners = set()
        for image, result in zip(batch, augmented(batch, cutout=side), strict=True):
            made = []
            for row in range(size):  # the square's centre is anywhere, its edge may hang over
                for column in range(size):
                    expected = image.numpy().copy()
                    top, left = row - side // 2, column - side // 2
                    expected[
                        :, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)
                    ] = 0
                    if (expected == result.numpy()).all():
                        made.append((row, column))
            assert len(made) == 1
            corners.update(made)
        for axis in (0, 1):
            assert {corner[axis] for corner in corners} == set(range(size))

    def test_cutout_larger_than_the_image(self):
        assert not augmented(images(), cutout=99).any()

    def test_all_together(self):
        batch = images(channels=1)
        result = augmented(batch, crop=4, flip=True, cutout=3)
        assert result.shape == batch.shape
        assert result.is_contiguous(memory_format=torch.channels_last)
        for image, after in zip(batch, result, strict=True):  # no value from another image
            assert set(after.unique().tolist()) - {0.0} <= set(image.unique().tolist())

    def test_draws_come_from_the_generator_alone(self):
        arguments = {"crop": 2, "flip": True, "cutout": 2}
        torch.manual_seed(1)
        first = augmented(images(), **arguments)
        torch.manual_seed(2)
        assert torch.equal(augmented(images(), **arguments), first)
        assert not torch.equal(augmented(images(), seed=1, **arguments), first)


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


def first_pixels(root, size=8):
    """The top left pixel of every image, training and test together."""
    source = sources.read(DataSettings(name="folder", root=str(root), image_size=size))
    return np.concatenate([source.train_pixels, source.test_pixels])[:, 0, 0].tolist()


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

    def test_a_test_set_of_another_name_is_no_class(self, tmp_path):
        folder(tmp_path, under="train")
        folder(tmp_path, under="valid")
        with pytest.raises(SettingsError, match="has train, but neither test nor val"):
            load_folder(tmp_path)

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
        source = sources.read(DataSettings(name="folder", root=str(tmp_path), image_size=10))
        assert source.train_pixels.min() == 255  # the centre square and nothing else

    @pytest.mark.parametrize(
        ("mode", "value", "suffix", "expected"),
        [
            ("RGB", (7, 8, 9), "png", [7, 8, 9]),
            ("RGB", (7, 8, 9), "bmp", [7, 8, 9]),
            ("L", 77, "png", [77, 77, 77]),
            ("1", 1, "png", [255, 255, 255]),
            ("I;16", 0x4080, "png", [0x40] * 3),
            ("I;16", 0x4080, "tiff", [0x40] * 3),
            ("RGBA", (7, 8, 9, 255), "png", [7, 8, 9]),
            ("RGBA", (0, 0, 0, 0), "png", [255, 255, 255]),
            ("LA", (10, 255), "png", [10, 10, 10]),
            ("CMYK", (0, 0, 0, 255), "tiff", [0, 0, 0]),
        ],
    )
    def test_every_mode_becomes_rgb(self, tmp_path, mode, value, suffix, expected):
        folder(tmp_path, each=0)
        for name in ("cat", "dog"):
            for number in range(3):
                save(tmp_path / name / f"{number}.{suffix}", value, mode)
        assert first_pixels(tmp_path) == [expected] * 6

    def test_a_palette_with_transparency(self, tmp_path):
        for name in ("cat", "dog"):
            for number in range(3):
                path = tmp_path / name / f"{number}.png"
                path.parent.mkdir(exist_ok=True)
                image = Image.new("P", (9, 9), 1)
                image.putpalette([0, 0, 0, 10, 20, 30])
                image.save(path, transparency=b"\xff\x00")
        assert first_pixels(tmp_path) == [[255, 255, 255]] * 6

    def test_floating_point_pixels_are_refused(self, tmp_path):
        save(folder(tmp_path) / "cat" / "deep.tiff", 0.5, "F")
        with pytest.raises(SettingsError, match=r"deep\.tiff is not a readable image .*8 or 16"):
            load_folder(tmp_path)

    def test_a_camera_turned_upright(self, tmp_path):
        turned = Image.Exif()
        turned[0x0112] = 6  # shown turned by a quarter to the right
        for name in ("cat", "dog"):
            for number in range(3):
                path = tmp_path / name / f"{number}.png"
                save(path, (0, 0, 0), size=(8, 8))
                with Image.open(path) as image:
                    image.putpixel((0, 7), (255, 0, 0))  # bottom left, which becomes top left
                    image.save(path, exif=turned)
        assert first_pixels(tmp_path) == [[255, 0, 0]] * 6

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
            (lambda root: (root / "cow").mkdir(), r"no valid file for the classes cow.*\.png"),
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

    def test_only_hidden_folders(self, tmp_path):
        save(tmp_path / ".git" / "0.png", (1, 1, 1))
        with pytest.raises(SettingsError, match="it has 0 class folders"):
            load_folder(tmp_path)


class TestFolderCache:
    def test_a_second_load_reads_no_image(self, tmp_path, monkeypatch):
        first = load_folder(folder(tmp_path))
        monkeypatch.setattr(sources, "_resized", lambda file, size: pytest.fail(f"read {file}"))
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


@pytest.mark.gpu
def test_data_moves_to_the_device_and_is_used_there(digits):
    device = torch.device("cuda:0")
    moved = digits.to(device)
    for part in (moved.train, moved.held_out, moved.test):
        assert part.images.device == part.labels.device == device
    assert moved.train.images.dtype == torch.uint8
    recipe = Recipe(crop=2, flip=True, cutout=3)
    draws = torch.Generator(device).manual_seed(0)
    values = data.augment(moved.normalised(moved.train.images), recipe, draws)
    assert values.device == device
    assert values.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        moved.normalised(moved.train.images).cpu(), digits.normalised(digits.train.images)
    )
