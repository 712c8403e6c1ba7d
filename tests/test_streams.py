"""Streamed images: what an epoch shows, in which order, to which process, and what can be wrong."""

import gc
import io
import multiprocessing
import pickle
import random
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.distributed_sampler import RepeatAugSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from blockqnn.config import DataSettings
from blockqnn.errors import SettingsError, UserError
from blockqnn.feeds import Part
from blockqnn.recipe import Recipe
from blockqnn.seeds import seed_for
from blockqnn.streams import StreamFeed, open_stream

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


@pytest.fixture(scope="module")
def plain_tree(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def noisy_tree(tmp_path_factory):
    return tree(tmp_path_factory.mktemp("noisy"), noisy, "JPEG")


def settings(root, **more):
    values = {"image_size": 16, "loaders": 0, "holdout": 0.2, **more}
    return DataSettings(name="imagenet", root=str(root), **values)


def feed(root, *, batch=10, seed=7, part=Part(), everything=False, data=None, **recipe):  # noqa: B008
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


class TestSplit:
    def test_images_are_held_out_of_every_class(self, plain_tree):
        stream = open_stream(settings(plain_tree), 0)
        assert stream.classes == CLASSES
        assert (stream.counts(False), stream.counts(True)) == ((24, 6), (30, 0))
        assert stream.test_images == 12
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
        train = feed(plain_tree, everything=True, batch=batch, part=Part(0, world))
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
        parts = [list(feed(noisy_tree, part=Part(rank, 2), **recipe).batches(2)) for rank in (0, 1)]
        assert [batch.size for batch in whole] == [9, 9, 9, 3]
        assert [batch.size for batch in parts[0]] == [9, 9, 9]  # no process is left with one image
        for together, *shares in zip(whole, *parts, strict=False):
            assert torch.equal(torch.cat([share.images for share in shares]), together.images)
            assert torch.equal(torch.cat([share.labels for share in shares]), together.labels)
        held_out = [feed(noisy_tree, part=Part(rank, 2)).held_out() for rank in (0, 1)]
        images = torch.cat([images for share in held_out for images, _ in share])
        assert torch.equal(images, torch.cat([i for i, _ in feed(noisy_tree).held_out()]))
        stream = open_stream(settings(noisy_tree), 0)
        tested = [
            images
            for rank in range(3)
            for images, _ in stream.test_batches(CPU, batch=3, part=Part(rank, 3))
        ]
        assert torch.equal(torch.cat(tested), torch.cat([i for i, _ in stream.test_batches(CPU)]))

    def test_repeated_augmentation_is_timms(self, plain_tree):
        """Each process sees what timm's distributed sampler gives it."""
        found = []
        for rank in range(3):
            recipe = {"everything": True, "augment_repeats": 3, "batch": 12}
            train = feed(plain_tree, part=Part(rank, 3), **recipe)
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
        shutil.rmtree(root / "train" / "n02")
        with pytest.raises(SettingsError, match=r"^\S+n02_\d.JPEG is not a readable image \(No su"):
            list(there.batches(2))
        there.close()
        assert not processes & {process.pid for process in multiprocessing.active_children()}

    def test_loaders_survive_a_signal_to_all_and_die_with_their_parent(self, noisy_tree):
        script = f"""if __name__ == "__main__":
            import multiprocessing, os, signal, sys
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            from test_streams import feed
            train = feed({str(noisy_tree)!r}, batch=4, data={{"loaders": 1}})
            batches = train.batches(0)
            next(batches)
            [loader] = multiprocessing.active_children()
            os.kill(loader.pid, signal.SIGTERM)
            print(1 + sum(1 for _ in batches), flush=True)
            sys.stdin.read()
        """
        command = [sys.executable, "-c", script]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdout.readline() == "6\n"
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


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


class TestMistakes:
    @pytest.mark.parametrize(
        ("mistake", "sentence"),
        [
            (lambda root: shutil.rmtree(root), "there is no such directory; give the one that"),
            (lambda root: shutil.rmtree(root / "val"), r"/val is not there: data.root needs train"),
            (lambda root: shutil.rmtree(root / "train"), r"/train is not there: data.root needs"),
            (
                lambda root: (root / "val" / "n10").rename(root / "val" / "n11"),
                r"train and \S+val must have the same class folders, but n10 is in the first only",
            ),
            (
                lambda root: [(root / "val" / f"x{n}").mkdir() for n in range(7)],
                r"val and \S+train must .* but x0, x1, x2, x3, x4 and 2 more are in the first only",
            ),
            (
                lambda root: [file.unlink() for file in (root / "train" / "n02").iterdir()],
                r"train has no images of class n02: put images \(.png, .jpg, .jpeg\) in the folder",
            ),
            (
                lambda root: [
                    shutil.rmtree(root / s / c) for s in ("train", "val") for c in CLASSES[1:]
                ],
                "train has 1 class folders: .*two classes or more",
            ),
            (
                lambda root: write(root / "val" / "n02" / "n02_0.png", b"no image"),
                r"val/n02/n02_0.png is not a readable image .* mend or remove it",
            ),
            (
                lambda root: (
                    (root / "train" / "n10" / "n10_9.png").symlink_to("nowhere")
                    if (root / "train" / "n10" / "n10_9.png").unlink() is None
                    else None
                ),
                r"train/n10/n10_9.png cannot be read \(No such file or directory\)",
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
        with pytest.raises(SettingsError, match="val has 0 class folders: .*ILSVRC.* sort them"):
            open_stream(settings(root), 0)

    def test_hidden_files_are_no_images(self, plain_tree, tmp_path):
        root = shutil.copytree(plain_tree, tmp_path / "copy")
        write(root / "train" / "n01" / "._n01_0.png", b"made by a Macintosh")
        (root / "train" / ".cache").mkdir()
        assert open_stream(settings(root), 0).counts(True) == (30, 0)

    def test_unknown_policy(self, plain_tree):
        with pytest.raises(SettingsError, match="^recipe.auto_augment is 'rend-m7': timm knows no"):
            feed(plain_tree, auto_augment="rend-m7")


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

    def test_resuming_reads_on(self, noisy_tree, tmp_path):
        root = shards(tmp_path, noisy_tree)
        recipe = {"batch": 6, "everything": True, "flip": True, "data": self.WDS}
        whole = list(feed(root, **recipe).batches(1))
        assert same(list(feed(root, **recipe).batches(1, first=3)), whole[3:])

    def test_processes_read_different_shards(self, plain_tree, tmp_path):
        root = shards(tmp_path, plain_tree, each=5)  # six shards
        found = []
        for rank in (0, 1):
            data = {"batch": 10, "everything": True, "data": self.WDS, "part": Part(rank, 2)}
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
            feed(root, data=self.WDS, everything=True, part=Part(0, 6))

    def test_a_test_image_that_cannot_be_read_is_not_passed_over(self, plain_tree, tmp_path):
        root = shards(tmp_path, plain_tree)
        pack(root / "val-0001.tar", [("x.png", b"no image"), ("x.cls", b"0")])
        stream = open_stream(settings(root, reader="wds"), 0)
        with pytest.raises(UserError, match="has 7 test images, but 6 could be read"):
            list(stream.test_batches(CPU))
