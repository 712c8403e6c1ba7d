"""Streamed images: what an epoch shows, in which order, to which process; the test images."""

import importlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.data.distributed_sampler import RepeatAugSampler
from tiny_images import CLASSES, CPU, MEAN, STD, feed, noisy, numbers, plain, same, settings, tree
from torchvision import transforms
from torchvision.datasets import ImageFolder

from blockqnn.data.feed import Share
from blockqnn.data.streamed.loading import IMPORTED
from blockqnn.data.streamed.stream import open_stream
from blockqnn.errors import SettingsError, UserError
from blockqnn.seeds import seed_for


@pytest.fixture(scope="module")
def plain_tree(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def noisy_tree(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("noisy"), noisy, "JPEG")


class TestSplit:
    def test_images_are_held_out_of_every_class(self, plain_tree):
        stream = open_stream(settings(plain_tree), 0)
        assert stream.classes == CLASSES
        assert (stream.counts(False), stream.counts(True)) == ((24, 6), (30, 0))
        assert len(stream.test) == 12
        train = feed(plain_tree)
        held_out = [number for images, _ in train.held_out() for number in numbers(images)]
        trained = [number for batch in train.batches(0) for number in numbers(batch.images)]
        assert sorted(held_out + trained) == [(c, n) for c in range(3) for n in range(10)]
        assert [label for label, _ in held_out] == [0, 0, 1, 1, 2, 2]
        assert (train.train_images, train.held_out_images) == (24, 6)
        all_of_them = feed(plain_tree, everything=True)
        assert (all_of_them.train_images, all_of_them.held_out_images) == (30, 0)
        assert list(all_of_them.held_out()) == []

    def test_the_split_depends_on_the_streams_seed_alone(self, plain_tree):
        held_out = [open_stream(settings(plain_tree), seed).held_out.tolist() for seed in (0, 0, 1)]
        assert held_out[0] == held_out[1] != held_out[2]

    def test_fingerprint(self, plain_tree, tmp_path):
        moved = shutil.copytree(plain_tree, tmp_path / "moved")
        of = [open_stream(settings(root), 0).fingerprint for root in (plain_tree, moved)]
        assert of[0] == of[1]
        assert open_stream(settings(moved), 1).fingerprint != of[0]
        (moved / "val" / "n01" / "n01_0.png").rename(moved / "val" / "n01" / "n01_9.png")
        renamed = open_stream(settings(moved), 0).fingerprint
        plain("val", 0, 200).save(moved / "val" / "n01" / "n01_9.png")
        assert len({of[0], renamed, open_stream(settings(moved), 0).fingerprint}) == 3


class TestEpoch:
    def test_every_image_once_in_an_order_of_the_epochs_own(self, plain_tree):
        train = feed(plain_tree, everything=True, flip=True)
        epochs = []
        for epoch in (0, 1, 0):
            batches = list(train.batches(epoch))
            assert [batch.size for batch in batches] == [10, 10, 10]
            epochs.append([number for batch in batches for number in numbers(batch.images)])
            labels = torch.cat([batch.labels for batch in batches]).tolist()
            assert labels == [label for label, _ in epochs[-1]]
        assert len(set(epochs[0])) == 30
        assert epochs[0] == epochs[2] != epochs[1]
        assert set(epochs[0]) == set(epochs[1])
        batch = batches[0]
        assert batch.images.shape == (10, 3, 16, 16)
        assert batch.images.dtype == torch.float32
        assert batch.images.is_contiguous(memory_format=torch.channels_last)

    @pytest.mark.parametrize(
        ("batch", "world", "sizes"),
        [(20, 1, [20, 10]), (29, 1, [29]), (28, 1, [28, 2]), (28, 2, [28]), (26, 2, [26, 4])],
    )
    def test_a_batch_too_small_for_batch_norm_is_left_out(self, plain_tree, batch, world, sizes):
        train = feed(plain_tree, everything=True, batch=batch, part=Share(0, world))
        assert train.steps() == len(sizes)
        assert [batch.size for batch in train.batches(3)] == sizes

    def test_resuming_gives_the_batches_that_were_left(self, noisy_tree):
        recipe = {"flip": True, "auto_augment": "rand-m7-mstd0.5-inc1", "random_erasing": 0.5}
        train = feed(noisy_tree, batch=5, **recipe)
        whole = list(train.batches(4))
        assert same(list(feed(noisy_tree, batch=5, **recipe).batches(4, first=2)), whole[2:])
        assert len(whole) == 5
        assert not same(list(feed(noisy_tree, batch=5, seed=8, **recipe).batches(4)), whole)

    def test_what_was_seen_is_not_read_again(self, plain_tree, tmp_path):
        root = shutil.copytree(plain_tree, tmp_path / "copy")
        train = feed(root)
        label, number = numbers(next(train.batches(0)).images)[3]
        file = root / "train" / CLASSES[label] / f"{CLASSES[label]}_{number}.png"
        file.write_bytes(file.read_bytes()[:60])
        assert [batch.size for batch in train.batches(0, first=1)] == [10, 4]
        with pytest.raises(SettingsError, match=f"^{file} is not a readable image"):
            list(train.batches(0))

    def test_other_users_of_random_numbers_notice_nothing(self, noisy_tree):
        def draw():
            return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

        def seed():
            random.seed(1)
            np.random.seed(1)  # noqa: NPY002
            torch.manual_seed(1)

        seed()
        expected = draw()
        seed()
        train = feed(noisy_tree, auto_augment="rand-m7-mstd0.5-inc1", random_erasing=0.5)
        list(train.batches(0))
        assert draw() == expected

    def test_random_erasing_blanks_a_rectangle_in_its_share_of_the_images(self, plain_tree):
        batches = [
            batch
            for epoch in range(10)
            for batch in feed(plain_tree, everything=True, random_erasing=0.25).batches(epoch)
        ]
        blank = torch.cat([(batch.images == 0).all(1).flatten(1).sum(1) for batch in batches])
        erased = blank > 0
        assert 45 <= erased.sum() <= 105  # of 300; three deviations around a quarter
        areas = blank[erased] / 256
        assert areas.min() > 0.005 and areas.max() < 0.4  # about 2 to 33 percent


class TestProcesses:
    def test_shares_make_up_the_batch_of_one_process(self, noisy_tree):
        recipe = {"batch": 9, "flip": True, "random_erasing": 0.5, "everything": True}
        whole = list(feed(noisy_tree, **recipe).batches(2))
        parts = [
            list(feed(noisy_tree, part=Share(rank, 2), **recipe).batches(2)) for rank in (0, 1)
        ]
        assert [batch.size for batch in whole] == [9, 9, 9, 3]
        assert [batch.size for batch in parts[0]] == [9, 9, 9]  # no process is left with one image
        for together, *shares in zip(whole, *parts, strict=False):
            assert torch.equal(torch.cat([share.images for share in shares]), together.images)
            assert torch.equal(torch.cat([share.labels for share in shares]), together.labels)
        held_out = [feed(noisy_tree, part=Share(rank, 2)).held_out() for rank in (0, 1)]
        images = torch.cat([images for share in held_out for images, _ in share])
        assert torch.equal(images, torch.cat([i for i, _ in feed(noisy_tree).held_out()]))
        stream = open_stream(settings(noisy_tree), 0)
        tested = [
            images
            for rank in range(3)
            for images, _ in stream.test_batches(CPU, batch=3, part=Share(rank, 3))
        ]
        assert torch.equal(torch.cat(tested), torch.cat([i for i, _ in stream.test_batches(CPU)]))

    def test_repeated_augmentation_is_timms(self, plain_tree):
        """Each process sees what timm's distributed sampler gives it."""
        found = []
        for rank in range(3):
            recipe = {"everything": True, "augment_repeats": 3, "batch": 12}
            train = feed(plain_tree, part=Share(rank, 3), **recipe)
            assert train.steps() == 3
            found.append([n for batch in train.batches(5) for n in numbers(batch.images)])
            sampler = RepeatAugSampler(range(30), num_replicas=3, rank=rank, num_repeats=3)
            sampler.set_epoch(seed_for(7, "order", 5))
            assert found[-1] == [divmod(number, 10) for number in sampler]
        assert found[0] == found[1] == found[2]
        assert len(set(found[0])) == 10

    def test_loader_processes_change_nothing_but_the_time(self, noisy_tree, tmp_path):
        root = shutil.copytree(noisy_tree, tmp_path / "copy")
        recipe = {"batch": 5, "flip": True, "auto_augment": "rand-m7-mstd0.5-inc1"}
        here, there = (feed(root, data={"loaders": loaders}, **recipe) for loaders in (0, 2))
        assert same(list(here.batches(0)), list(there.batches(0)))
        begun = there.batches(1)
        next(begun)
        processes = {process.pid for process in multiprocessing.active_children()}
        for (a, b), (c, d) in zip(here.held_out(), there.held_out(), strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)
        with pytest.raises(RuntimeError, match="newer pass"):
            list(begun)
        assert same(list(here.batches(1, first=3)), list(there.batches(1, first=3)))
        assert {process.pid for process in multiprocessing.active_children()} == processes
        broken_off = there.batches(3)
        next(broken_off)
        shutil.rmtree(root / "train" / "n02")
        with pytest.raises(SettingsError, match=r"^\S+n02_\d.JPEG is not a readable image \(No su"):
            list(there.batches(2))
        there.close()
        assert not processes & {process.pid for process in multiprocessing.active_children()}

    def test_what_loaders_need_is_imported_before_they_are_forked(self):
        """The server that forks them passes over a name that cannot be imported."""
        for name in IMPORTED:
            importlib.import_module(name)

    def test_a_lost_loader_is_an_error_of_one_sentence(self, noisy_tree):
        train = feed(noisy_tree, batch=2, data={"loaders": 1})
        batches = train.batches(0)
        next(batches)
        [loader] = multiprocessing.active_children()
        os.kill(loader.pid, signal.SIGKILL)
        with pytest.raises(UserError, match="^a process that loads images was lost") as error:
            list(batches)
        assert "\n" not in str(error.value)
        train.close()
        assert len(list(train.batches(0))) == 12

    def test_loaders_survive_a_signal_to_all_and_die_with_their_parent(self, noisy_tree):
        program = Path(__file__).parents[1] / "helpers" / "tiny_images.py"
        command = [sys.executable, str(program), str(noisy_tree)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdout.readline() == "5\n"
            process.kill()
            assert process.stdout.read() == ""  # ends once nobody holds the other end


class TestTestSet:
    @pytest.mark.parametrize(("size", "resized"), [(16, 18), (32, 36)])
    def test_one_centre_crop(self, noisy_tree, size, resized):
        steps = [
            transforms.Resize(resized),  # the side over 0.875, rounded down
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
        expected = ImageFolder(noisy_tree / "val", transforms.Compose(steps))
        found = list(open_stream(settings(noisy_tree), 0).test_batches(CPU, size, batch=5))
        assert [len(labels) for _, labels in found] == [5, 5, 2]
        images = torch.stack([image for image, _ in expected])
        torch.testing.assert_close(torch.cat([images for images, _ in found]), images)
        assert torch.cat([labels for _, labels in found]).tolist() == expected.targets

    def test_held_out_images_are_cut_as_test_images_are(self, noisy_tree, tmp_path):
        train = feed(noisy_tree)
        root = tmp_path / "swapped"
        shutil.copytree(noisy_tree / "train", root / "val")
        shutil.copytree(noisy_tree / "val", root / "train")
        tested = [image for i, _ in open_stream(settings(root), 0).test_batches(CPU) for image in i]
        for images, labels in train.held_out():
            for image, label in zip(images, labels, strict=True):
                assert any(
                    torch.equal(image, each) for each in tested[10 * label : 10 * label + 10]
                )
