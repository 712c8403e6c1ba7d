"""Files of images as people have them: odd kinds, layouts, links, damaged ones, the same twice."""

import io
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_images import CPU, files_of, pack, pixels, settings

from blockqnn.data.read import read
from blockqnn.data.streamed.check import check_images
from blockqnn.data.streamed.stream import open_stream
from blockqnn.errors import SettingsError
from blockqnn.settings import DataSettings

SIDE = 24


def plain(mode, colour, kind="PNG", **options):
    """A file of one colour."""
    return saved(Image.new(mode, (SIDE, SIDE), colour), kind, **options)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def palette(**options):
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    return saved(image, **options)


def animated(kind):
    """Two pictures, of which the first is grey."""
    first, second = (Image.new("RGB", (SIDE, SIDE), colour) for colour in ("gray", "red"))
    return saved(first, kind, save_all=True, append_images=[second], duration=100, loop=0)


def turned(kind, place):
    """Red above black, as a camera saves it that was held on its side; `place` is EXIF's number."""
    image = Image.new("RGB", (SIDE, SIDE), "black")
    image.paste((255, 0, 0), (0, 0, SIDE, SIDE // 2))
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[place]
    exif = Image.Exif()
    exif[0x0112] = place
    return saved(image.transpose(back), kind, exif=exif)


ODD = {
    "16-bit grey.png": (plain("I;16", 0x4080), [0x40] * 3),
    "16-bit grey.tiff": (plain("I;16", 0x4080, "TIFF"), [0x40] * 3),
    "16-bit grey, big end first.tif": (plain("I;16B", 0x4080, "TIFF"), [0x40] * 3),
    "upside down.jpg": (turned("JPEG", 3), [254, 0, 0]),
    "on its side.png": (turned("PNG", 6), [255, 0, 0]),
    "grey and alpha.png": (plain("LA", (10, 0)), [255] * 3),
    "grey, opaque.png": (plain("LA", (10, 255)), [10] * 3),
    "half transparent.png": (plain("RGBA", (0, 0, 0, 128)), [127] * 3),
    "transparent colour.png": (plain("RGB", (7, 8, 9), transparency=(7, 8, 9)), [255] * 3),
    "another transparent colour.png": (plain("RGB", (7, 8, 9), transparency=(1, 1, 1)), [7, 8, 9]),
    "palette.png": (palette(), [10, 20, 30]),
    "transparent palette.png": (palette(transparency=b"\xff\x00"), [255] * 3),
    "CMYK.jpg": (plain("CMYK", (0, 0, 0, 255), "JPEG"), [0, 0, 0]),
    "1 bit.png": (plain("1", 1), [255] * 3),
    "1 bit, black.tif": (plain("1", 0, "TIFF"), [0] * 3),
    "animated.gif": (animated("GIF"), [128] * 3),
    "animated.webp": (animated("WEBP"), [128] * 3),
    "animated.png": (animated("PNG"), [128] * 3),
    "grey.PNG": (plain("L", 77), [77] * 3),
    "colour.bmp": (plain("RGB", (7, 8, 9), "BMP"), [7, 8, 9]),
}
"""Content of files by name, and the colour of the top left pixel."""

IN_SHARDS = ("jpg", "png", "webp")
"""Kinds of images that WebDataset's shards name."""


def both_sets(root, files):
    """Folders train and val of two classes with these contents by name."""
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for file, content in files.items():
                (folder / file).write_bytes(content)
    return root


class TestOddFiles:
    """Every reader sees the same in a file. The streamed ones show all of it: the crop is whole."""

    @pytest.fixture
    def tree(self, tmp_path):
        return both_sets(tmp_path / "images", {name: content for name, (content, _) in ODD.items()})

    def shown(self, stream):
        images = torch.cat([images for images, _ in stream.test_batches(CPU, SIDE, crop=1.0)])
        return pixels(images)[:, :, 0, 0].tolist()

    def expected(self, names):
        return [ODD[name][1] for name in names] * 2

    def close(self, seen, expected):
        """JPEG and scaling round."""
        assert np.abs(np.subtract(seen, expected)).max() <= 2

    def test_class_folders_in_memory(self, tree):
        settings = DataSettings(name="folder", root=str(tree), image_size=SIDE)
        self.close(read(settings).test_pixels[:, 0, 0], self.expected(sorted(ODD)))

    def test_class_folders_on_disk(self, tree):
        stream = open_stream(settings(tree), 0)
        names = [stream.test.name(number).split("/")[1] for number in range(len(ODD))]
        assert sorted(names) == sorted(ODD)
        self.close(self.shown(stream), self.expected(names))

    def test_tar_files(self, tree, tmp_path):
        for part in ("train", "val"):
            pack(tmp_path / "tars" / f"{part}.tar", files_of(tree / part))
        stream = open_stream(settings(tmp_path / "tars", reader="tar"), 0)
        names = [stream.test.name(number).split("/")[-1] for number in range(len(ODD))]
        assert sorted(names) == sorted(ODD)
        self.close(self.shown(stream), self.expected(names))

    @pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's own
    def test_shards(self, tmp_path):
        names = [name for name in ODD if name.rpartition(".")[2] in IN_SHARDS]
        members = []
        for label in range(2):
            for number, name in enumerate(names):
                stem, kind = f"{label}{number:02}", name.rpartition(".")[2]
                members += [(f"{stem}.{kind}", ODD[name][0]), (f"{stem}.cls", b"%d" % label)]
        for part in ("train", "val"):
            pack(tmp_path / f"{part}-0000.tar", members)
        stream = open_stream(settings(tmp_path, reader="wds"), 0)
        self.close(self.shown(stream), self.expected(names))


def test_a_picture_whose_metadata_are_damaged_is_shown_as_it_lies(tmp_path):
    content = turned("WEBP", 3)
    assert content.count(b"MM\x00*") == 1  # the beginning of the metadata
    root = both_sets(
        tmp_path, {f"{n}.webp": content.replace(b"MM\x00*", b"XM\x00*") for n in "012"}
    )
    seen = in_memory(root).test_pixels[:, 0, 0]
    assert seen.max() <= 9  # the black side is up; WebP rounds


def in_memory(root):
    return read(DataSettings(name="folder", root=str(root), image_size=8))


def some(number):
    """Files of images of which no two are the same, by name."""
    return {f"{n}.png": plain("RGB", (number, n, n)) for n in range(6)}


def folders(root, *names, number=0):
    """Folders below `root` with six images each; a name that ends in a slash has class folders."""
    for name in names:
        for below in (f"{name}cat", f"{name}dog") if name.endswith("/") else (name,):
            number += 1
            (root / below).mkdir(parents=True)
            for file, content in some(number).items():
                (root / below / file).write_bytes(content)
    return root


class TestLayouts:
    @pytest.mark.parametrize(
        ("names", "test", "unused"),
        [
            (["Train/", "Test/"], "Test", None),
            (["Training/", "Testing/"], "Testing", None),
            (["train/", "valid/"], "valid", None),
            (["train/", "val/", "test/"], "test", "val"),
            (["train/", "valid/", "test/"], "test", "valid"),
            (["train/", "val/", "test"], "val", "test"),  # whose images have no labels
            (["TRAIN/", "Validation/", "__MACOSX/", "extra"], "Validation", "extra"),
        ],
    )
    def test_both_readers_take_the_same(self, tmp_path, caplog, names, test, unused):
        caplog.set_level(logging.INFO, "blockqnn.data")
        root = folders(tmp_path, *names)
        source, stream = in_memory(root), open_stream(settings(root), 0)
        assert source.classes == stream.classes == ("cat", "dog")
        assert len(source.train_labels) == len(stream.train) == 12
        assert len(source.test_labels) == len(stream.test) == 12
        assert stream.test.path.name == test
        told = {record.getMessage() for record in caplog.records}
        [parts] = [message for message in told if "training images are those of" in message]
        assert f"test images those of {test}" in parts
        assert parts.partition("not used: ")[2] == (unused or "")

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (["Train", "Test"], "it has Test and Train without class folders; put every image"),
            (["train/", "Training/", "test/"], "it has Training and train; keep one of them"),
            (["train/", "test"], "test has 0 class folders; put every image in the folder"),
            (["train", "test/"], "train has no class folders, but test has"),
            (["cat", "dog", "test/"], "it has no train, but test has"),
            (["train/"], "it has train, but neither test nor val beside it"),
            (["cat", "dog", "test"], "it has test beside other folders; "),
        ],
    )
    def test_what_is_not_clear_is_refused(self, tmp_path, names, message):
        root = folders(tmp_path, *names)
        for reader in (in_memory, lambda root: open_stream(settings(root), 0)):
            with pytest.raises(SettingsError, match=message):
                reader(root)

    def test_an_archive_of_a_macintosh(self, tmp_path):
        assert in_memory(folders(tmp_path, "cat", "dog", "__MACOSX")).classes == ("cat", "dog")

    def test_a_folder_too_far_up(self, tmp_path):
        folders(tmp_path / "pets", "cat", "dog")
        with pytest.raises(SettingsError, match=f"1 class folders; give .* say '{tmp_path}/pets'"):
            in_memory(tmp_path)

    def test_images_deeper_in_a_class(self, tmp_path):
        root = folders(tmp_path, "train/", "val/")
        shutil.copytree(root / "train" / "cat", root / "train" / "cat" / "indoors" / "2024")
        assert len(in_memory(root).train_labels) == len(open_stream(settings(root), 0).train) == 18


class TestPassedOver:
    def test_links_multiply_nothing(self, tmp_path, caplog):
        root = folders(tmp_path / "images", "train/", "val/")
        for name in ("cat", "dog"):
            folder = root / "train" / name
            (folder / "again").symlink_to(folder)
            (folder / "up").symlink_to(root / "train")
            (folder / "far up").symlink_to(tmp_path)
            (folder / "other").symlink_to(root / "train" / {"cat": "dog", "dog": "cat"}[name])
        assert len(in_memory(root).train_labels) == len(open_stream(settings(root), 0).train) == 12
        assert (
            f"{root}/train: links that lead to folders read already, and are not followed: 8"
            in (caplog.text)
        )

    def test_a_link_to_itself_hides_nothing(self, tmp_path):
        root = folders(tmp_path / "images", "train/", "val/")
        for place in (root, root / "train", root / "train" / "cat"):
            (place / "loop").symlink_to(place / "loop")
        assert len(in_memory(root).train_labels) == len(open_stream(settings(root), 0).train) == 12

    def test_a_class_may_be_a_link(self, tmp_path):
        root = folders(tmp_path / "images", "cat", "dog")
        (root / "cat").rename(tmp_path / "elsewhere")
        (root / "cat").symlink_to(tmp_path / "elsewhere")
        assert in_memory(root).classes == ("cat", "dog")

    def test_what_is_not_read_is_counted(self, tmp_path, caplog):
        root = folders(tmp_path, "train/", "val/")
        for number in range(50):
            (root / "train" / "cat" / f"{number}.heic").write_bytes(b"")
        (root / "train" / "dog" / "notes").write_bytes(b"")
        in_memory(root)
        assert "not read: 50 .heic, 1 without ending" in caplog.text
        caplog.clear()
        open_stream(settings(root), 0)
        assert "not read: 50 .heic, 1 without ending" in caplog.text


class TestTheSameTwice:
    def test_in_folders_of_their_own(self, tmp_path, caplog):
        root = folders(tmp_path, "train/", "test/")
        in_memory(root)
        assert "training images too" not in caplog.text
        shutil.copy(root / "train" / "cat" / "3.png", root / "test" / "cat" / "copy.png")
        in_memory(root)
        assert "training images too, which flatters every network: 1, say" in caplog.text
        assert "train/cat/3.png and test/cat/copy.png" in caplog.text

    def test_in_a_test_set_that_is_cut_off(self, tmp_path, caplog):
        root = folders(tmp_path, "cat", "dog")
        for number in range(6):
            shutil.copy(root / "cat" / f"{number}.png", root / "cat" / f"copy of {number}.png")
        in_memory(root)
        assert "training images too, which flatters every network" in caplog.text

    def test_on_disk(self, tmp_path, caplog):
        root = folders(tmp_path / "images", "train/", "val/")
        check_images(settings(root), tmp_path, 2)
        assert "training images too" not in caplog.text
        shutil.copy(root / "train" / "dog" / "1.png", root / "val" / "cat" / "copy.png")
        for _ in range(2):  # the second time from the notes
            caplog.clear()
            check_images(settings(root), tmp_path, 2)
            assert "flatters every network: 1, say cat/copy.png" in caplog.text


class TestFullCheck:
    def test_a_cut_off_file_is_found_before_a_training(self, tmp_path):
        root = folders(tmp_path / "images", "train/", "val/")
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        for place in ("train/cat/9.jpg", "val/dog/8.jpg"):
            content = saved(Image.fromarray(noise), "JPEG")
            (root / place).write_bytes(content[: len(content) // 2])
        open_stream(settings(root), 0)  # reads the first of each class
        with pytest.raises(SettingsError) as caught:
            check_images(settings(root), tmp_path, 2)
        message = str(caught.value)
        assert "train/cat/9.jpg is not a readable image (image file is truncated" in message
        assert "2 files in all" in message and "val/dog/8.jpg" in message
        assert not (tmp_path / "checked.json").exists()

    def test_what_was_found_whole_is_not_read_again(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, "blockqnn.data")
        root = folders(tmp_path / "images", "train/", "val/")
        check_images(settings(root), tmp_path, 2)
        assert "each of 24 images is read once" in caplog.text
        caplog.clear()
        check_images(settings(root), tmp_path, 2)
        assert "is read once" not in caplog.text
        os.truncate(root / "train" / "cat" / "5.png", 60)
        with pytest.raises(SettingsError, match=r"5\.png is not a readable image"):
            check_images(settings(root), tmp_path, 2)

    def test_tar_files(self, tmp_path):
        root = folders(tmp_path / "images", "train/", "val/")
        files = files_of(root / "train")
        files[5] = (files[5][0], files[5][1][:60])
        pack(tmp_path / "tars" / "train.tar", files)
        pack(tmp_path / "tars" / "val.tar", files_of(root / "val"))
        with pytest.raises(SettingsError, match=r"train\.tar/cat/5\.png is not a readable image"):
            check_images(settings(tmp_path / "tars", reader="tar"), tmp_path, 2)

    def test_what_is_no_image_in_tar_files_is_counted(self, tmp_path, caplog):
        root = folders(tmp_path / "images", "train/", "val/")
        others = [("cat/film.mp4", b"1"), ("dog/film.MP4", b"2"), ("dog/._1.png", b"3")]
        pack(tmp_path / "tars" / "val.tar", files_of(root / "val") + others)
        inner = []  # a tar file of tar files, one a class, as ILSVRC comes
        for name in ("cat", "dog"):
            pack(tmp_path / name, [*files_of(root / "train" / name), ("notes", b"4")])
            inner.append((f"{name}.tar", (tmp_path / name).read_bytes()))
        pack(tmp_path / "tars" / "train.tar", inner)
        check_images(settings(tmp_path / "tars", reader="tar"), tmp_path, 2)
        assert "not read: 2 without ending, 2 .mp4" in caplog.text

    @pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's own
    def test_shards(self, tmp_path, caplog):
        root, tars = folders(tmp_path / "images", "train/", "val/"), tmp_path / "tars"
        for part in ("train", "val"):
            members = []
            for number, (name, content) in enumerate(files_of(root / part)):
                label = b"1" if name.startswith("dog") else b"0"
                members += [(f"{number}.png", content), (f"{number}.cls", label)]
            pack(tars / f"{part}-0000.tar", members)
        check_images(settings(tars, reader="wds"), tmp_path, 2)
        assert "training images too" not in caplog.text
        first = files_of(root / "train")[0][1]
        pack(tars / "val-0009.tar", [("again.png", first), ("again.cls", b"1")])
        check_images(settings(tars, reader="wds"), tmp_path, 2)
        assert "flatters every network: 1, say val-0009.tar/again" in caplog.text
        pack(
            tars / "train-0009.tar",
            [("cut.png", first[:60]), ("cut.cls", b"1"), ("lost.jpeg", first), ("lost.cls", b"0")],
        )
        with pytest.raises(SettingsError) as caught:
            check_images(settings(tars, reader="wds"), tmp_path, 2)
        message = str(caught.value)
        assert "train-0009.tar/cut.* is not a readable image (" in message
        assert "2 files in all" in message
        assert "lost has no image (jpg, png, webp), it has cls, jpeg: write it again" in message
