"""What lies where below a directory of images: training and test sets, classes, files.

What is passed over is said once, in a line of the log.
"""

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from blockqnn.data.files.decoding import TYPES
from blockqnn.errors import SettingsError

log = logging.getLogger(__name__)

TRAIN = ("train", "training")
TEST = ("test", "testing")
VAL = ("val", "valid", "validation")
"""Names of folders, in lower case, that are a part of the images and no class."""

Identity = tuple[int, int]
"""What tells one directory from another, whatever links lead to it."""


@dataclass(frozen=True)
class Parts:
    """Where the training images lie, and the test images if they have a folder of their own."""

    train: Path
    test: Path | None


def find_parts(root: Path, remedy: str = "") -> Parts:
    """Find the training and the test set below `root`, or class folders alone.

    The test set is the folder test, or val where test is not there or has no class folders. Their
    names may be longer (testing, valid, ...) and in capitals. Says what became what. Raises
    `SettingsError` where that is not clear, with the `remedy` for a training set alone.
    """
    folders = visible_folders(root)
    train, test, val = (
        [path for path in folders if path.name.lower() in names] for names in (TRAIN, TEST, VAL)
    )
    with_classes = {path for path in folders if visible_folders(path)}
    for same in (train, test, val):
        if len(several := [path.name for path in same if path in with_classes]) > 1:
            raise _unclear(root, f"it has {' and '.join(several)}; keep one of them")
    rest = [*test, *val]
    judged = [path for path in rest if path in with_classes]
    if not with_classes.intersection(train):
        if judged:
            missing = f"{train[0].name} has no class folders" if train else "it has no train"
            what = f"{missing}, but {judged[0].name} has; put training images in the same way"
            raise _unclear(root, f"{what} in the folder train")
        if rest and len(folders) == len(train) + len(rest):
            names = " and ".join(path.name for path in folders)
            what = f"it has {names} without class folders; put every image in the folder of its"
            raise _unclear(root, f"{what} class")
        if rest:
            what = (
                f"it has {rest[0].name} beside other folders; if it is a class, call it otherwise"
            )
            raise _unclear(root, f"{what}, else move it away: its images have no classes")
        return Parts(root, None)
    if rest and not judged:
        raise _unclear(
            root,
            f"{rest[0].name} has 0 class folders; put every image in the folder of its class (the "
            "validation images of ILSVRC come in one folder: sort them)",
        )
    if not judged:
        what = f"it has {train[0].name}, but neither test nor val beside it; name the folder of"
        raise _unclear(root, f"{what} test images test{remedy}")
    unused = [path.name for path in folders if path not in (train[0], judged[0])]
    log.info(
        "%s: training images are those of %s, test images those of %s%s",
        *(root, train[0].name, judged[0].name, f"; not used: {few(unused)}" if unused else ""),
    )
    return Parts(train[0], judged[0])


def visible_folders(path: Path) -> list[Path]:
    """The folders in a directory but for hidden ones, by name; empty if it cannot be read."""
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if _is_folder(entry)]
    except OSError:
        return []
    return [path / name for name in sorted(names) if not hidden(name)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def hidden(path: str) -> bool:
    """Whether a file or folder is hidden, or what a Macintosh adds to an archive."""
    name = os.path.basename(path)
    return name.startswith(".") or name == "__MACOSX"


@dataclass
class ClassFiles:
    """The images in class folders, class by class in the order of the names."""

    classes: tuple[str, ...]
    files: list[list[Path]]
    passed_over: Counter[str] = field(default_factory=Counter)
    """Files that are no images, by how their names end."""
    links: int = 0
    """Folders not entered since they were seen, or hold, the one with the link."""


def class_files(root: Path) -> ClassFiles:
    """All images of the class folders in `root`, however deep they lie in them.

    No folder is entered twice in a class, nor one that holds the class or is another one: a link
    that leads in a circle multiplies nothing. Hidden files are no images. Raises `SettingsError`
    for a folder that cannot be read, for fewer than two classes and for one without images.
    """
    try:
        os.scandir(root).close()
    except OSError as error:
        raise SettingsError(
            f"{root}: {error.strerror}; give a directory with one folder of images a class "
            f"({', '.join(TYPES)}) as data.root"
        ) from None
    folders = visible_folders(root)
    check_names(root, [path.name for path in folders])
    if len(folders) < 2:
        inside = [path for path in folders if len(visible_folders(path)) > 1]
        hint = f", say {str(inside[0])!r}" if inside else ""
        raise SettingsError(
            f"{root}: it has {len(folders)} class folders; give a directory with one folder of "
            f"images a class, two classes or more, as data.root{hint}"
        )
    found = ClassFiles(tuple(path.name for path in folders), [])
    above = {_identity(path) for path in (root, *root.resolve().parents, *folders)}
    for path in folders:
        files: list[Path] = []
        _gather(path, found, files, set(above))
        found.files.append(sorted(files, key=lambda file: (str(file.parent), file.name)))
    if empty := [path.name for path, files in zip(folders, found.files, strict=True) if not files]:
        raise SettingsError(
            f"{root} has no images of class {few(empty)}: put images ({', '.join(TYPES)}) in the "
            "folder, or remove it"
        )
    _say_passed_over(root, found)
    return found


def _gather(folder: Path, found: ClassFiles, files: list[Path], seen: set[Identity]) -> None:
    """Add the images of a folder and of those in it."""
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not hidden(entry.name)]
    except OSError as error:
        raise SettingsError(
            f"{folder} cannot be read ({error.strerror}): mend its rights, or remove it"
        ) from None
    inside = []
    for entry in shown:
        if _is_folder(entry):
            inside.append(entry)
        elif os.path.splitext(entry.name)[1].lower() in TYPES:
            files.append(folder / entry.name)
        else:
            found.passed_over[os.path.splitext(entry.name)[1].lower() or "without ending"] += 1
    # what lies here goes before what links lead to
    for entry in sorted(inside, key=lambda entry: (entry.is_symlink(), entry.name)):
        identity = _identity(folder / entry.name)
        if identity in seen:
            found.links += 1
            continue
        seen.add(identity)
        _gather(folder / entry.name, found, files, seen)


def _identity(path: Path) -> Identity:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _say_passed_over(root: Path, found: ClassFiles) -> None:
    if found.passed_over:
        kinds = few(f"{count} {suffix}" for suffix, count in found.passed_over.most_common())
        log.warning("%s: files that are no images and are not read: %s", root, kinds)
    if found.links:
        what = "links that lead to folders read already, and are not followed"
        log.warning("%s: %s: %d", root, what, found.links)


def check_names(path: Path, names: Iterable[str]) -> None:
    """Raise `SettingsError` for class folders whose names no table, log or JSON could hold."""
    for name in names:
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise SettingsError(
                f"{path} has a class folder called {name!r}: give it a name in UTF-8 without "
                "control characters"
            )


def few(names: Iterable[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _unclear(root: Path, what: str) -> SettingsError:
    return SettingsError(f"data.root is {str(root)!r}: {what}")
