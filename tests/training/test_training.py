"""Training: against a plain loop, killed for real, out of memory for real; its outcomes."""

import errno
import hashlib
import io
import logging
import math
import resource
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_training import (
    CPU,
    program,
    tiny_data,
    tiny_network,
    tiny_settings,
    tiny_trainer,
    without_seconds,
)
from torch import nn

from blockqnn.data import Dataset, ImageSet
from blockqnn.data import memory_feed as feeds
from blockqnn.data.augment import augment as plain_augment
from blockqnn.search.candidate import train_candidate
from blockqnn.seeds import seed_for
from blockqnn.training.checkpoint import Checkpoint
from blockqnn.training.devices import full_name
from blockqnn.training.precision import count_correct
from blockqnn.training.trainer import NoBetterThanChance, NotFinite
from blockqnn.zoo import BLOCKS

RESIDUAL = BLOCKS["residual"]


@pytest.fixture(scope="module")
def digits():
    return tiny_data()


@pytest.fixture(scope="module")
def uninterrupted(digits):
    """The trainer of the tiny training, after it."""
    trainer = tiny_trainer(digits)
    trainer.run()
    return trainer


def assert_same_end(trainer, expected):
    """The same weights, bit for bit, and the same curve."""
    state, wanted = trainer.network.state_dict(), expected.network.state_dict()
    assert list(state) == list(wanted)
    assert [name for name in state if not torch.equal(state[name], wanted[name])] == []
    assert without_seconds(trainer.curve) == without_seconds(expected.curve)


def killed(directory, mode):
    """Run the tiny training in a process of its own and kill it where it stops."""
    with program(directory, mode) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def rates_of(digits, **recipe):
    """The learning rate at the first step of each epoch, of five steps."""
    return [entry["learning_rate"] for entry in tiny_trainer(digits, **recipe).run()]


class TestLearningRate:
    def test_the_papers_schedule(self, digits):
        rates = rates_of(digits, epochs=12, learning_rate=1e-3, decay=0.2, decay_epochs=5)
        assert rates == pytest.approx([1e-3] * 5 + [2e-4] * 5 + [4e-5] * 2, rel=1e-12)

    def test_milestones(self, digits):
        plan = {"schedule": "multistep", "milestones": (2, 3), "decay": 0.1, "learning_rate": 0.1}
        assert rates_of(digits, **plan) == pytest.approx([0.1, 0.1, 0.01, 0.001], rel=1e-12)

    def test_cosine(self, digits):
        rates = rates_of(digits, schedule="cosine", learning_rate=0.1, min_learning_rate=0.02)
        expected = [0.02 + 0.04 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
        assert rates == pytest.approx(expected, rel=1e-12)

    def test_warm_up(self, digits):
        warm = {"warmup_epochs": 2, "warmup_learning_rate": 0.01, "learning_rate": 0.11}
        rates = rates_of(digits, schedule="multistep", milestones=(3,), decay=0.1, **warm)
        assert rates == pytest.approx([0.01, 0.06, 0.11, 0.011], rel=1e-12)

    def test_every_step_uses_it(self, digits):
        trainer = tiny_trainer(
            digits, epochs=3, learning_rate=0.1, decay=0.5, decay_epochs=1, restart_factor=0.4
        )
        trainer.restart = 2
        rates = [entry["learning_rate"] for entry in trainer.run()]
        assert rates == pytest.approx([0.016, 0.008, 0.004], rel=1e-12)

    def test_a_rate_of_almost_nothing_moves_almost_nothing(self, digits):
        trainer = tiny_trainer(digits, epochs=1, optimizer="momentum", learning_rate=1e-30)
        trainer.run()
        before = dict(tiny_network().named_parameters())
        for name, parameter in trainer.network.named_parameters():
            torch.testing.assert_close(parameter, before[name], rtol=0, atol=1e-20)


@pytest.mark.parametrize(
    ("optimizer", "reference"),
    [
        ("adam", lambda p: torch.optim.Adam(p, 0.01, (0.9, 0.999), 1e-8, weight_decay=1e-3)),
        ("momentum", lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, weight_decay=1e-3)),
        (
            "sgd",
            lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, weight_decay=1e-3, nesterov=True),
        ),
    ],
)
def test_it_agrees_with_a_plain_loop(digits, optimizer, reference):
    trainer = tiny_trainer(
        digits, epochs=2, optimizer=optimizer, weight_decay=1e-3, crop=0, flip=False, cutout=0
    )
    curve = trainer.run()

    network, losses, hits = tiny_network(), [], []
    stepper = reference(network.parameters())
    pixels = digits.train.images.numpy().astype(np.float64)
    inputs = torch.tensor((pixels - pixels.mean()) / pixels.std(), dtype=torch.float32)
    for epoch in range(2):
        network.train()
        order = torch.randperm(
            140, generator=torch.Generator().manual_seed(seed_for(7, "order", epoch))
        )
        loss_sum = hit_sum = 0.0
        for start in range(0, 140, 32):
            batch = order[start : start + 32]
            logits = network(inputs[batch])
            loss = nn.functional.cross_entropy(logits, digits.train.labels[batch])
            stepper.zero_grad()
            loss.backward()
            stepper.step()
            loss_sum += loss.item() * len(batch)
            hit_sum += (logits.argmax(1) == digits.train.labels[batch]).sum().item()
        losses.append(loss_sum / 140)
        hits.append(100 * hit_sum / 140)
    assert [entry["loss"] for entry in curve] == pytest.approx(losses, rel=1e-4)
    assert [entry["train_accuracy"] for entry in curve] == pytest.approx(hits, abs=0.8)
    for ours, theirs in zip(trainer.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours.contiguous(), theirs, rtol=1e-2, atol=1e-3)


class TestOneEpoch:
    def test_it_learns(self, digits):
        curve = tiny_trainer(
            digits, epochs=8, learning_rate=0.03, decay_epochs=4, crop=0, flip=False, cutout=0
        ).run()
        assert [entry["epoch"] for entry in curve] == list(range(1, 9))
        assert curve[-1]["loss"] < 0.6 * curve[0]["loss"]
        assert curve[-1]["train_accuracy"] > 50
        assert curve[-1]["accuracy"] > 35  # chance is 10
        assert all(entry["seconds"] > 0 for entry in curve)

    def test_weights_and_images_are_channels_last(self, uninterrupted):
        for parameter in uninterrupted.network.parameters():
            if parameter.dim() == 4:
                assert parameter.is_contiguous(memory_format=torch.channels_last)

    def test_order_and_draws_differ_from_epoch_to_epoch(self, digits, monkeypatch):
        batches = []

        def spy(images, recipe, generator, **share):
            batches.append((images.clone(), plain_augment(images, recipe, generator, **share)))
            return batches[-1][1]

        monkeypatch.setattr(feeds, "augment", spy)
        tiny_trainer(digits, epochs=2, batch=70, crop=0, cutout=0, flip=True).run()
        assert len(batches) == 4
        flips = {}  # of each image in each of the two epochs
        for images, flipped in batches:
            for image, result in zip(images, flipped, strict=True):
                flips.setdefault(image.numpy().tobytes(), []).append(torch.equal(image, result))
        assert set(map(len, flips.values())) == {2}  # every image once an epoch
        assert 30 < sum(a != b for a, b in flips.values()) < 110
        assert not torch.equal(batches[0][0], batches[2][0])

    def test_a_last_batch_of_one_image_is_left_out(self, digits):
        few = ImageSet(digits.train.images[:65], digits.train.labels[:65])
        entry = tiny_trainer(replace(digits, train=few), epochs=1).run()[0]
        assert np.isfinite(entry["loss"])
        assert (entry["train_accuracy"] * 64 / 100) == pytest.approx(
            round(entry["train_accuracy"] * 64 / 100), abs=1e-9
        )

    def test_bfloat16_and_float32_agree(self, digits):
        losses = {}
        for precision in ("float32", "bfloat16"):
            trainer = tiny_trainer(digits, epochs=2, precision=precision)
            losses[precision] = [entry["loss"] for entry in trainer.run()]
            assert {p.dtype for p in trainer.network.parameters()} == {torch.float32}
        assert losses["bfloat16"] != losses["float32"]
        assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


def test_errors_carry_the_curve(digits):
    trainer = tiny_trainer(digits)
    trainer.chance = 100.0
    with pytest.raises(NoBetterThanChance, match=r"ended at \d+\.\d\d %") as caught:
        trainer.run()
    assert len(caught.value.curve) == 1
    with pytest.raises(NotFinite):
        tiny_trainer(digits, optimizer="sgd", learning_rate=1e38).run()


class Ask(nn.Module):
    """Logits that name the value of the first pixel, in steps."""

    def forward(self, images):
        return nn.functional.one_hot(images[:, 0, 0, 0].long(), 10).float()


def test_evaluation_by_hand(digits):
    pixels = torch.zeros(1203, 1, 8, 8, dtype=torch.uint8)  # more than two evaluation batches
    labels = torch.arange(1203) % 10
    pixels[:, 0, 0, 0] = labels
    pixels[-3:, 0, 0, 0] += 1  # three mistakes, in the last batch
    plain = replace(digits, mean=torch.zeros(1, 1, 1, 1), std=torch.ones(1, 1, 1, 1))
    batches = feeds.normalised_batches(plain, ImageSet(pixels, labels))
    right, seen = count_correct(Ask(), batches, CPU, "float32", classes=10)
    assert (int(right.sum()), int(seen.sum())) == (1200, 1203)
    assert torch.equal(seen, labels.bincount(minlength=10))
    assert torch.equal(right, labels[:-3].bincount(minlength=10))  # the mistakes are the last three


def test_balanced_accuracy_is_the_mean_of_the_classes(digits):
    held_out = digits.held_out
    kept = (held_out.labels != 3) | (torch.arange(len(held_out)) % 3 == 0)  # few threes
    unequal = ImageSet(held_out.images[kept], held_out.labels[kept])
    trainer = tiny_trainer(replace(digits, held_out=unequal), epochs=6, learning_rate=0.03)
    trainer.metric = "balanced_accuracy"
    entry = trainer.run()[-1]
    with torch.no_grad():
        guesses = trainer.kept.eval()(digits.normalised(unequal.images)).argmax(1).tolist()
    labels = unequal.labels.tolist()
    right = [guess == label for guess, label in zip(guesses, labels, strict=True)]
    by_class = [
        sum(ok for ok, label in zip(right, labels, strict=True) if label == each)
        / labels.count(each)
        for each in set(labels)
    ]
    assert entry["accuracy"] == pytest.approx(100 * sum(right) / len(right))
    assert entry["balanced_accuracy"] == pytest.approx(100 * sum(by_class) / len(by_class))
    assert entry["accuracy"] != pytest.approx(entry["balanced_accuracy"])


def test_evaluation_changes_nothing(digits):
    network = tiny_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batches = feeds.normalised_batches(digits, digits.held_out)
    count_correct(network, batches, CPU, "float32", 10)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Stop(Exception):
    pass


class TestResume:
    def test_killed_in_the_middle_of_an_epoch(self, digits, uninterrupted, tmp_path):
        killed(tmp_path, "epoch")
        trainer = tiny_trainer(digits, tmp_path)
        assert len(trainer.checkpoint.load(CPU)["curve"]) == 2
        trainer.run()
        assert_same_end(trainer, uninterrupted)

    def test_killed_in_the_middle_of_a_checkpoint(self, digits, uninterrupted, tmp_path):
        killed(tmp_path, "write")
        half = [path for path in tmp_path.iterdir() if path.name != "checkpoint"]
        assert len(half) == 1
        assert 0 < half[0].stat().st_size < (tmp_path / "checkpoint").stat().st_size
        trainer = tiny_trainer(digits, tmp_path)
        assert len(trainer.checkpoint.load(CPU)["curve"]) == 1
        trainer.run()
        assert_same_end(trainer, uninterrupted)

    @pytest.mark.parametrize("recipe", [{"optimizer": "sgd"}, {"weight_decay": 1e-2}], ids=str)
    @pytest.mark.parametrize("batch", [1, 6, 14])
    def test_stopped_before_any_batch(self, digits, tmp_path, monkeypatch, recipe, batch):
        expected = tiny_trainer(digits, epochs=3, **recipe)
        expected.run()
        seen = 0

        def augment(*arguments, **share):
            nonlocal seen
            seen += 1
            if seen == batch:
                raise Stop
            return plain_augment(*arguments, **share)

        monkeypatch.setattr(feeds, "augment", augment)
        with pytest.raises(Stop):
            tiny_trainer(digits, tmp_path, epochs=3, **recipe).run()
        monkeypatch.undo()
        trainer = tiny_trainer(
            digits, tmp_path, network=tiny_network(seed=99 if batch > 5 else 0), epochs=3, **recipe
        )
        trainer.run()
        assert_same_end(trainer, expected)


class Malice:
    def __reduce__(self):
        return (pytest.fail, ("a checkpoint was executed",))


def with_digest(content):
    return hashlib.sha256(content).digest() + content


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class TestCheckpoint:
    def test_round_trip(self, tmp_path):
        checkpoint = Checkpoint(tmp_path / "checkpoint", "mine")
        assert checkpoint.load(CPU) is None
        checkpoint.save({"network": {"w": torch.arange(3)}, "curve": [{"loss": 0.1}]})
        checkpoint.save({"network": {"w": torch.arange(4)}, "curve": [{"loss": 0.5}]})
        state = checkpoint.load(CPU)
        assert torch.equal(state["network"]["w"], torch.arange(4))
        assert state["curve"] == [{"loss": 0.5}]
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]

    @pytest.mark.parametrize(
        ("damage", "warning"),
        [
            (lambda whole: b"", "is damaged"),
            (lambda whole: b"garbage", "is damaged"),
            (lambda whole: b"\x80\x04" + b"garbage" * 99, "is damaged"),
            (lambda whole: whole[:-1], "is damaged"),
            (lambda whole: whole[: len(whole) // 2], "is damaged"),
            (lambda whole: whole[:5000] + bytes([whole[5000] ^ 4]) + whole[5001:], "is damaged"),
            (lambda whole: whole[32:], "is damaged"),
            (lambda whole: saved({"identity": "tiny", "m": Malice()}), "is damaged"),
            (
                lambda whole: with_digest(saved({"identity": "tiny", "m": Malice()})),
                "is no checkpoint",
            ),
            (lambda whole: with_digest(saved([1, 2])), "belongs to another training"),
            (lambda whole: with_digest(saved({"curve": []})), "belongs to another training"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_damaged_one_is_not_used(self, digits, tmp_path, caplog, damage, warning):
        expected = tiny_trainer(digits, epochs=1)
        expected.run()
        trainer = tiny_trainer(digits, tmp_path, epochs=2)
        trainer.run()
        path = tmp_path / "checkpoint"
        path.write_bytes(damage(path.read_bytes()))
        again = tiny_trainer(digits, tmp_path, epochs=1)
        with caplog.at_level(logging.WARNING):
            again.run()
        assert [r.getMessage() for r in caplog.records if str(path) in r.getMessage()]
        assert warning in caplog.text
        assert_same_end(again, expected)

    def test_one_of_another_training_is_not_used(self, digits, tmp_path, caplog):
        tiny_trainer(digits, tmp_path, epochs=2, identity="another").run()
        trainer = tiny_trainer(digits, tmp_path, epochs=1)
        trainer.run()
        assert len(trainer.curve) == 1
        assert "belongs to another training and is not used" in caplog.text

    def test_a_full_disk_is_an_os_error_and_the_old_one_stays(self, digits, tmp_path, monkeypatch):
        monkeypatch.setattr(Dataset, "constant_guess", lambda data, metric: 0.0)  # it goes on
        checkpoint = Checkpoint(tmp_path / "checkpoint", "tiny")
        checkpoint.save({"curve": []})
        before = checkpoint.path.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large") as caught:
                train_candidate(RESIDUAL, tiny_settings(restarts=0), digits, tmp_path, CPU)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.errno == errno.EFBIG
        assert checkpoint.path.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.gpu
class TestGpu:
    DEVICE = torch.device("cuda:0")

    def trainer(self, digits, **recipe):
        return tiny_trainer(digits.to(self.DEVICE), **recipe)

    def test_it_agrees_with_the_cpu(self, digits):
        plain = {"epochs": 2, "crop": 0, "flip": False, "cutout": 0}
        ours = [entry["loss"] for entry in self.trainer(digits, **plain).run()]
        cpu = [entry["loss"] for entry in tiny_trainer(digits, **plain).run()]
        assert ours == pytest.approx(cpu, rel=0.02)

    def test_mixed_precision_is_chosen_where_it_is_fast(self, digits):
        trainer, dtypes = self.trainer(digits, epochs=1, precision="auto"), set()
        trainer.network.register_forward_hook(lambda m, i, output: dtypes.add(output.dtype))
        trainer.run()
        fast = torch.cuda.get_device_capability(self.DEVICE)[0] >= 8
        assert dtypes == {torch.bfloat16 if fast else torch.float32}
        for parameter in trainer.network.parameters():
            assert (parameter.device, parameter.dtype) == (self.DEVICE, torch.float32)
            if parameter.dim() == 4:
                assert parameter.is_contiguous(memory_format=torch.channels_last)


def test_a_device_has_one_name():
    """Workers of one card know each other by it."""
    first = "cuda:0" if torch.cuda.is_available() else "cpu"
    assert [full_name(name) for name in ("cuda", "cuda:0", "auto")] == ["cuda:0", "cuda:0", first]
    assert full_name("cuda:1") == "cuda:1"
