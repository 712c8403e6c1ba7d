"""What each part of a recipe does to a training, and that a training stopped anywhere goes on."""

import logging
import math

import numpy as np
import pytest
import torch
from tiny_search import small_disk
from tiny_training import CPU, tiny_data, tiny_network, tiny_trainer, without_seconds
from torch import nn

from blockqnn.network import build_network
from blockqnn.seeds import seed_for
from blockqnn.settings import CheckpointSettings
from blockqnn.space import Block
from blockqnn.training.checkpoint import Checkpoint
from blockqnn.training.precision import count_correct
from blockqnn.training.trainer import Interrupted
from blockqnn.zoo import BLOCKS

PLAIN = {"crop": 0, "flip": False, "cutout": 0, "optimizer": "momentum"}
STILL = {**PLAIN, "learning_rate": 1e-30, "epochs": 1}
"""A recipe that moves no weight: every loss is that of the first weights."""

LEARNING = {**PLAIN, "optimizer": "adam", "learning_rate": 0.03, "decay_epochs": 9}


@pytest.fixture(scope="module")
def digits():
    return tiny_data()


def weights(network):
    """All parameters in one vector."""
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


def first_logits(digits, batch):
    """Logits and labels of the first epoch's batches, by a plain loop over fresh weights."""
    network = tiny_network().train()
    order = torch.randperm(140, generator=torch.Generator().manual_seed(seed_for(7, "order", 0)))
    for some in order.split(batch):
        pixels = digits.train.images[some].float()
        yield network((pixels - digits.mean) / digits.std).detach(), digits.train.labels[some]


class TestLoss:
    def test_label_smoothing(self, digits):
        entry = tiny_trainer(digits, **STILL, batch=70, label_smoothing=0.3).run()[0]
        losses = []
        for logits, labels in first_logits(digits, 70):
            log_probability = logits.double().log_softmax(1).numpy()
            target = np.full(log_probability.shape, 0.03)
            target[np.arange(len(labels)), labels] += 0.7
            losses.append(-(target * log_probability).sum(1).mean())
        assert entry["loss"] == pytest.approx(np.mean(losses), rel=1e-4)

    def test_binary_cross_entropy(self, digits):
        entry = tiny_trainer(digits, **STILL, batch=70, loss="bce").run()[0]
        losses = []
        for logits, labels in first_logits(digits, 70):
            chance = 1 / (1 + np.exp(-logits.double().numpy()))
            right = np.eye(10)[labels]
            losses.append(-(right * np.log(chance) + (1 - right) * np.log(1 - chance)).mean())
        assert entry["loss"] == pytest.approx(np.mean(losses), rel=1e-4)

    @pytest.mark.parametrize("mix", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1}])
    def test_mixed_images_are_harder(self, digits, mix):
        recipe = {**LEARNING, "epochs": 8}
        plain = tiny_trainer(digits, **recipe).run()[-1]
        mixed = tiny_trainer(digits, **recipe, **mix).run()[-1]
        assert mixed["loss"] > plain["loss"] + 0.2
        assert mixed["accuracy"] > 25  # chance is 10

    def test_mixing_leaves_the_callers_random_numbers_alone(self, digits):
        np.random.seed(3)  # noqa: NPY002
        torch.manual_seed(3)
        expected = np.random.rand(), torch.rand(())  # noqa: NPY002
        np.random.seed(3)  # noqa: NPY002
        torch.manual_seed(3)
        tiny_trainer(digits, **STILL, mixup=0.4).run()
        assert (np.random.rand(), torch.rand(())) == expected  # noqa: NPY002


def test_a_batch_in_parts_agrees_with_a_plain_loop(digits):
    trainer = tiny_trainer(
        digits, **PLAIN, epochs=1, batch=64, accumulate=2, learning_rate=0.05, momentum=0.0
    )
    trainer.run()
    network = tiny_network().train()
    stepper = torch.optim.SGD(network.parameters(), 0.05)
    order = torch.randperm(140, generator=torch.Generator().manual_seed(seed_for(7, "order", 0)))
    for batch in order.split(64):
        stepper.zero_grad()
        for part in batch.tensor_split(2):
            images = digits.normalised(digits.train.images[part])
            loss = nn.functional.cross_entropy(
                network(images), digits.train.labels[part], reduction="sum"
            )
            (loss / len(batch)).backward()
        stepper.step()
    torch.testing.assert_close(weights(trainer.network), weights(network), rtol=1e-3, atol=1e-4)


def test_clipping_bounds_the_step(digits):
    still = weights(tiny_network())
    trainer = tiny_trainer(
        digits, **PLAIN, epochs=1, batch=140, learning_rate=0.5, momentum=0.0, clip_gradient=0.01
    )
    trainer.run()  # one step along a gradient of norm 0.01
    assert (weights(trainer.network) - still).norm() == pytest.approx(0.005, rel=1e-3)


def test_weight_decay_of_all_parameters_or_of_kernels_alone(digits):
    def shrunk(**recipe):
        rate = {"learning_rate": 1.0, "momentum": 0.0, "weight_decay": 0.1, "clip_gradient": 1e-9}
        trainer = tiny_trainer(digits, **PLAIN, epochs=1, batch=140, **rate, **recipe)
        before = dict(tiny_network().named_parameters())
        trainer.run()
        moved = dict(trainer.network.named_parameters())
        return {
            1 if value.dim() == 1 else 4: bool((moved[name] - value).abs().max() > 1e-6)
            for name, value in before.items()
            if value.dim() in (1, 4) and value.abs().min() > 0
        }

    assert shrunk(decay_all=True) == {1: True, 4: True}
    assert shrunk(decay_all=False) == {1: False, 4: True}


class TestAverageOfWeights:
    def test_by_hand(self, digits):
        trainer = tiny_trainer(digits, **PLAIN, epochs=1, batch=70, learning_rate=0.05, ema=0.9)
        seen = []
        trainer.watch = lambda epoch, step: seen.append(weights(trainer.network))
        trainer.run()
        first, second = seen
        keep = 1 - (1 + 1) ** (-2 / 3)  # timm's warm-up of the decay at the second step
        expected = keep * first + (1 - keep) * second
        torch.testing.assert_close(weights(trainer.kept), expected)

    def test_it_is_what_the_accuracy_is_of(self, digits):
        trainer = tiny_trainer(digits, **LEARNING, epochs=3, ema=0.99)
        entry = trainer.run()[-1]
        counts = {}
        for name, network in (("kept", trainer.kept), ("last", trainer.network)):
            counts[name] = int(
                count_correct(network, trainer.feed.held_out(), CPU, "float32", 10)[0].sum()
            )
        assert entry["accuracy"] == pytest.approx(100 * counts["kept"] / 60)
        assert counts["kept"] != counts["last"]


class Recorder:
    """A feed that writes down which images it gave."""

    def __init__(self, feed):
        self._feed = feed
        self.given = []

    def __getattr__(self, name):
        return getattr(self._feed, name)

    def batches(self, epoch, first=0):
        for batch in self._feed.batches(epoch, first):
            self.given.append([image.numpy().tobytes() for image in batch.images])
            yield batch


def stopping_at(trainer, step):
    """Let a trainer stop after so many steps of all."""
    done = []
    trainer.watch = lambda epoch, at: done.append(at)
    trainer.stop = lambda: len(done) >= step
    return trainer


RECIPES = {
    "plain": {"optimizer": "adam"},
    "averaged": {"optimizer": "momentum", "ema": 0.95},
    "mixed": {"optimizer": "adamw", "mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1},
    "in parts": {"optimizer": "lamb", "accumulate": 2, "clip_gradient": 1.0, "loss": "bce"},
    "cosine": {"optimizer": "sgd", "schedule": "cosine", "warmup_epochs": 1},
    "dropping": {"optimizer": "momentum", "drop_path": 0.3, "dropout": 0.2},
}


def network_for(recipe, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(
            BLOCKS["residual"],
            filters=(4, 6),
            repeats=1,
            num_classes=10,
            in_channels=1,
            drop_path=recipe.get("drop_path", 0.0),
            dropout=recipe.get("dropout", 0.0),
        )


class TestStopping:
    @pytest.mark.parametrize("step", [1, 3, 5, 7])
    @pytest.mark.parametrize("name", RECIPES)
    def test_in_the_middle_of_an_epoch(self, digits, tmp_path, name, step):
        recipe = {**RECIPES[name], "epochs": 2}
        expected = tiny_trainer(digits, network=network_for(recipe), **recipe)
        expected.run()
        first = tiny_trainer(digits, tmp_path, network=network_for(recipe), **recipe)
        with pytest.raises(Interrupted):
            stopping_at(first, step).run()
        again = tiny_trainer(digits, tmp_path, network=network_for(recipe, seed=9), **recipe)
        again.run()
        assert torch.equal(weights(again.network), weights(expected.network))
        assert torch.equal(weights(again.kept), weights(expected.kept))
        assert without_seconds(again.curve) == without_seconds(expected.curve)

    def test_no_image_is_seen_twice_in_an_epoch(self, digits, tmp_path):
        still = {"crop": 0, "flip": False, "cutout": 0, "epochs": 1}
        given = []
        for stop in (2, 3, 99):
            trainer = tiny_trainer(digits, tmp_path, **still)
            trainer.feed = Recorder(trainer.feed)
            try:
                stopping_at(trainer, stop).run()
            except Interrupted:
                given += trainer.feed.given[:stop]
            else:
                given += trainer.feed.given
        images = [image for batch in given for image in batch]
        wanted = [image.numpy().tobytes() for image in digits.normalised(digits.train.images)]
        assert sorted(images) == sorted(wanted)

    def test_the_clock_saves_in_the_middle_of_an_epoch(self, digits, tmp_path):
        trainer = tiny_trainer(digits, tmp_path, epochs=1)
        trainer.cadence = CheckpointSettings(minutes=1e-9)
        steps = []
        trainer.watch = lambda epoch, step: steps.append(trainer.checkpoint.load(CPU))
        trainer.run()
        assert [state and state["step"] for state in steps] == [None, 1, 2, 3, 4]

    def test_every_second_epoch(self, digits, tmp_path):
        trainer = tiny_trainer(digits, tmp_path, epochs=5)
        trainer.cadence = CheckpointSettings(epochs=2, minutes=None)
        saved = []
        trainer.checkpoint.save = lambda state: saved.append(len(state["curve"]))
        trainer.run()
        assert saved == [2, 4]


class TestPrevious:
    def test_a_truncated_checkpoint_falls_back_to_the_one_before(self, digits, tmp_path, caplog):
        expected = tiny_trainer(digits)
        expected.run()
        trainer = tiny_trainer(digits, tmp_path)
        trainer.checkpoint = Checkpoint(tmp_path / "checkpoint", "tiny", keep_previous=True)
        trainer.run()
        last, before = tmp_path / "checkpoint", tmp_path / "checkpoint.previous"
        assert sorted(path.name for path in tmp_path.iterdir()) == [last.name, before.name]
        last.write_bytes(last.read_bytes()[:-100])
        again = tiny_trainer(digits)
        again.checkpoint = trainer.checkpoint
        with caplog.at_level(logging.WARNING):
            again.run()
        assert f"{last} is damaged and is not used" in caplog.text
        assert f"{before} is used instead" in caplog.text
        assert torch.equal(weights(again.network), weights(expected.network))
        assert without_seconds(again.curve) == without_seconds(expected.curve)

    def test_a_damaged_one_does_not_take_the_place_of_the_one_before(self, tmp_path):
        with small_disk(tmp_path / "disk", 64) as disk:
            checkpoint = Checkpoint(disk / "checkpoint", "tiny", keep_previous=True)
            for number in (1, 2):
                checkpoint.save({"number": number})
            checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:-1])
            assert checkpoint.load(CPU)["number"] == 1
            with pytest.raises(OSError):
                checkpoint.save({"number": 3, "more": torch.zeros(20_000)})
            assert checkpoint.load(CPU)["number"] == 1

    def test_best(self, digits, tmp_path):
        trainer = tiny_trainer(digits, epochs=6, learning_rate=0.03)
        trainer.best = Checkpoint(tmp_path / "best", "tiny")
        curve = trainer.run()
        state = trainer.best.load(CPU)
        accuracies = [entry["accuracy"] for entry in curve]
        assert state["epoch"] == 1 + accuracies.index(max(accuracies))
        network = tiny_network(seed=5)
        network.load_state_dict(state["network"])
        counts = count_correct(network, trainer.feed.held_out(), CPU, "float32", 10)
        correct, seen = counts.sum(1).tolist()
        assert 100 * correct / seen == pytest.approx(max(accuracies))


def test_training_on_everything(digits):
    whole = digits.everything()
    assert (len(whole.train), len(whole.held_out)) == (200, 0)
    pixels = whole.train.images.double()
    assert float(whole.mean) == pytest.approx(float(pixels.mean()), rel=1e-6)
    assert float(whole.std) == pytest.approx(float(pixels.std(correction=0)), rel=1e-6)
    curve = tiny_trainer(whole, epochs=2).run()
    measured = {"images_per_second", "seconds", "cores", "memory"}
    told = {"epoch", "learning_rate", "loss", "train_accuracy"} | measured
    assert [entry.keys() for entry in curve] == [told] * 2
    assert all(math.isfinite(entry["loss"]) for entry in curve)
    # one thread, and torch alone is more than that
    assert all(0 < entry["cores"] < 1.5 and entry["memory"] > 50 * 2**20 for entry in curve)


def small_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = Block.parse("(1,1,3,0,0)(2,7,0,0,0)")
        return build_network(block, filters=(4,), repeats=1, num_classes=10, in_channels=1)


def test_a_compiled_network_trains_as_an_eager_one(digits):
    recipe = {**PLAIN, "epochs": 1, "batch": 70, "learning_rate": 0.01}
    eager, compiled = (
        tiny_trainer(digits, network=small_network(), **recipe, compile=compile)
        for compile in (False, True)
    )
    assert compiled.run()[0]["loss"] == pytest.approx(eager.run()[0]["loss"], rel=1e-3)
    assert list(compiled.network.state_dict()) == list(eager.network.state_dict())
