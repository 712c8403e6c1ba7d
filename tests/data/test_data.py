"""Data: splits, fingerprints, normalisation, augmentation image by image."""

import numpy as np
import pytest
import torch

from blockqnn.data import dataset as data
from blockqnn.data.augment import augment
from blockqnn.data.source import Source
from blockqnn.errors import SettingsError
from blockqnn.settings import DataSettings, Recipe

DIGITS = DataSettings(name="digits", images=300, holdout=0.3)


@pytest.fixture(scope="module")
def digits():
    return data.load(DIGITS, seed=0)


def load_source(monkeypatch, source, seed=0, **settings):
    """What `data.load` makes of a source given by the test."""
    monkeypatch.setattr(data, "read", lambda settings: source)
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
    return augment(batch, Recipe(**recipe), torch.Generator().manual_seed(seed))


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


@pytest.mark.gpu
def test_data_moves_to_the_device_and_is_used_there(digits):
    device = torch.device("cuda:0")
    moved = digits.to(device)
    for part in (moved.train, moved.held_out, moved.test):
        assert part.images.device == part.labels.device == device
    assert moved.train.images.dtype == torch.uint8
    recipe = Recipe(crop=2, flip=True, cutout=3)
    draws = torch.Generator(device).manual_seed(0)
    values = augment(moved.normalised(moved.train.images), recipe, draws)
    assert values.device == device
    assert values.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        moved.normalised(moved.train.images).cpu(), digits.normalised(digits.train.images)
    )
