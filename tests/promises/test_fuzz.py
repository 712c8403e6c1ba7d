"""Whatever bytes or texts come from outside, readers give a value or a sentence for people."""

import copy
import gzip
import hashlib
import io
import json
import os
import pickle
import struct

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_search import TINY, cached_load, finish, journal_of, tiny_settings

from blockqnn.data.archive import read_prepared
from blockqnn.data.streamed.shards import read_shards
from blockqnn.errors import UserError
from blockqnn.network.weights import load_weights, save_weights
from blockqnn.params import load_plan, load_settings
from blockqnn.search.candidate_files import keep_outcome, kept_outcome
from blockqnn.search.journal import _line
from blockqnn.search.outcome import Outcome
from blockqnn.search.search import read_search
from blockqnn.space import Block
from blockqnn.storage import DirectoryInUse, DirectoryLock
from blockqnn.training.checkpoint import DIGEST_BYTES, Checkpoint
from blockqnn.training.final.job import read_job
from blockqnn.training.final.result import read_result
from blockqnn.zoo import BLOCKS
from evaluation.candidates.front import Point, read_front, write_front
from evaluation.comparison.block_tables import BlockBenchmark, read_block_table
from evaluation.comparison.nasbench201 import read_nasbench201
from evaluation.plots.front import draw_fronts
from evaluation.results import read_run
from evaluation.stages.evaluated import read_judged
from evaluation.stages.search import read_search_summary, write_search
from evaluation.stages.selection import read_selection
from evaluation.stages.trained import read_trained
from flows.cli.shared import assignment
from flows.runs import run_directory, search_directory
from flows.terminal.search_tables import print_block

FUZZ = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
CPU = torch.device("cpu")
DEEP = "[" * 5_000

TEXTS = st.text(max_size=20) | st.sampled_from(
    ["../../x", "/etc/passwd", "$(touch x)", "'; touch x; '", "a\0b", "\ud800", "1e999", "-1", ""]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 2**63])
    | st.floats()
    | TEXTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def places(tree, path=()):
    """Every place in a tree of dictionaries and lists."""
    yield path
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from places(value, (*path, key))


@st.composite
def altered(draw, tree):
    """The tree with a value or two replaced or left out."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(places(tree))))
        if not path:
            return draw(VALUES)
        parent = tree
        for key in path[:-1]:
            parent = parent[key]
        if isinstance(parent, dict) and draw(st.integers(0, 3)) == 0:
            del parent[path[-1]]
        else:
            parent[path[-1]] = draw(VALUES)
    return tree


@st.composite
def damaged(draw, content):
    """The bytes with some cut off or changed, or others altogether."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.binary(max_size=200))
    if kind == 1:
        return content[: draw(st.integers(0, len(content)))]
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        # more in the beginning, where headers are
        end = draw(st.sampled_from([min(64, len(changed)), min(4096, len(changed)), len(changed)]))
        changed[draw(st.integers(0, end - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


def text_of(tree):
    return json.dumps(tree).encode(errors="surrogatepass")


def checked(read, *arguments):
    """What a reader returns; None for an error, which has to be one for people, in one line."""
    try:
        return read(*arguments)
    except (UserError, ValueError) as error:
        assert not isinstance(error, UnicodeError), error
        assert "\n" not in str(error)
        assert str(error)
        return None


@given(text=st.text(max_size=60) | st.text("(),0123456789- \n", max_size=60))
@FUZZ
def test_block_codes(text):
    block = checked(Block.parse, text)
    assert block is None or Block.parse(str(block)) == block


@pytest.mark.parametrize("text", ["(1," * 100_000, "(" * 10**6, " " * 10**6, "(1,1,1,0,0)" * 10**5])
def test_long_block_codes_end_soon(text):
    assert checked(Block.parse, text) is None


@pytest.mark.parametrize("text", ["²", "9" * 5000, "../../x", "[red]", "\0"])
def test_blocks_to_show(text, tmp_path):
    assert checked(print_block, text, tmp_path, None) is None


@given(name=TEXTS | st.from_regex(r"[.A-Za-z0-9/_-]{1,9}"))
@FUZZ
def test_names_stay_below_runs(name, tmp_path):
    for directory in (
        checked(search_directory, tmp_path, name),
        (checked(run_directory, tmp_path, None, name) or (None, None))[1],
        (checked(run_directory, tmp_path, name, "digits") or (None, None))[1],
    ):
        if directory is not None:
            assert os.path.dirname(os.path.abspath(directory)) == str(tmp_path)


@given(text=TEXTS.map("seed={}".format) | st.text(max_size=30))
@FUZZ
def test_assignments(text):
    checked(assignment, text)


@pytest.mark.parametrize("text", [f"a={DEEP}", "a=2001-99-99", "a=&a [*a]", "a=!!python/name:os.x"])
def test_hostile_assignments(text):
    checked(assignment, text)


PARAMS = {"search": TINY, "recipes": {"r": {"epochs": 1}}, "training": {"d": {"recipe": "r"}}}


@given(
    tree=altered(PARAMS), overrides=st.dictionaries(TEXTS | st.just("recipe"), VALUES, max_size=2)
)
@FUZZ
def test_params(tree, overrides, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree))
    checked(load_settings, path)
    checked(load_plan, path, "d")
    path.write_text(yaml.safe_dump(PARAMS))
    checked(load_settings, path, None, overrides)
    checked(load_plan, path, "d", None, overrides)


@pytest.mark.parametrize("name", [2018, None, "a\nb", 1.5])
def test_odd_names_in_params(name, tmp_path):
    path = tmp_path / "params.yaml"
    for changed in (
        {"recipes": {name: {"epochs": 1}}},
        {"training": {name: {}}},
        {"search": {**TINY, name: 1}},
        {name: {}},
    ):
        path.write_text(yaml.safe_dump({**PARAMS, **changed}))
        assert checked(load_plan, path, "d") is None or "search" in changed
        assert checked(load_settings, path) is None or "search" not in changed


@given(content=damaged(yaml.safe_dump(PARAMS).encode()), profile=TEXTS, data=TEXTS)
@FUZZ
def test_params_files(content, profile, data, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    checked(load_settings, path)
    path.write_text(yaml.safe_dump(PARAMS))
    assert checked(load_settings, path, profile) is None
    assert checked(load_plan, path, data) is None


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished search, and its best blocks in a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blockqnn.search.search.load", cached_load)
        patch.setattr(os, "fsync", lambda descriptor: None)
        directory = tmp_path_factory.mktemp("runs") / "tiny"
        finish(directory, tiny_settings(batch=2, schedule=[[1.0, 2]]))
    write_search(read_search(directory), "tiny", directory / "frozen")
    return directory


@given(data=st.data())
@FUZZ
def test_journals(data, finished, tmp_path):
    content = (finished / "journal.jsonl").read_bytes()
    (tmp_path / "journal.jsonl").write_bytes(data.draw(damaged(content)))
    checked(read_search, tmp_path)
    records = journal_of(finished)  # with checksums that hold
    try:
        lines = [_line(record) for record in data.draw(altered(records))]
    except (ValueError, TypeError, AttributeError, UnicodeError):  # no record that can be written
        return
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines))
    checked(read_search, tmp_path)


def test_deep_journals(finished, tmp_path):
    content = (finished / "journal.jsonl").read_bytes()
    (tmp_path / "journal.jsonl").write_bytes(content + DEEP.encode() + b"\n" + content)
    assert checked(read_search, tmp_path) is None


STATE = {"epoch": 3, "weights": {"a": torch.zeros(4)}, "curve": [1.0]}


def saved_state(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


@given(content=damaged(saved_state({**STATE, "identity": "own"})))
@FUZZ
def test_checkpoints(content, tmp_path):
    checkpoint = Checkpoint(tmp_path / "checkpoint", "own")
    for stored in (content, hashlib.sha256(content).digest() + content):
        checkpoint.path.write_bytes(stored)
        state = checkpoint.load(CPU)
        assert state is None or state["identity"] == "own"


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hacked",)


@pytest.mark.parametrize("pickled", [Hostile(), {"identity": "own", "x": Hostile()}, [1], None])
def test_a_checkpoint_never_runs_code(pickled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = Checkpoint(tmp_path / "checkpoint", "own")
    for content in (saved_state(pickled), pickle.dumps(pickled)):
        checkpoint.path.write_bytes(hashlib.sha256(content).digest() + content)
        assert checkpoint.load(CPU) is None
    assert not (tmp_path / "hacked").exists()
    assert DIGEST_BYTES == hashlib.sha256().digest_size


CURVE = {"epoch": 1, "loss": 1.0, "accuracy": 50.0, "seconds": 1.0}
KEPT = {
    "identity": "own",
    "outcome": Outcome(kind="trained", accuracy=50.0, curve=(CURVE,), seconds=1.0).to_dict(),
}


@given(content=altered(KEPT).map(text_of) | damaged(text_of(KEPT)) | st.just(DEEP.encode()))
@FUZZ
def test_kept_outcomes(content, tmp_path):
    (tmp_path / "outcome.json").write_bytes(content)
    outcome = kept_outcome(tmp_path, "own")
    if outcome is not None:
        keep_outcome(tmp_path, "own", outcome)  # what is told goes into the journal
        assert kept_outcome(tmp_path, "own") == outcome
        assert sum(point["loss"] for point in outcome.curve if "loss" in point) is not None
        assert outcome.seconds + outcome.restarts >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"accuracy": 10**400},
        {"seconds": -(10**400)},
        {"restarts": 10**400},
        {"curve": [{**CURVE, "loss": 10**400}]},
        {"accuracy": float("nan")},
    ],
)
def test_outcomes_with_numbers_that_are_no_float(change, tmp_path):
    values = {**KEPT["outcome"], **change}
    with pytest.raises(ValueError):
        Outcome.from_dict(values)
    (tmp_path / "outcome.json").write_text(json.dumps({**KEPT, "outcome": values}))
    assert kept_outcome(tmp_path, "own") is None


WINNER = {"block": str(BLOCKS["A"]), "accuracy": 90.0, "number": 1}
SELECTION = {"version": 1, "search": "s", "ranking": [{"rank": 1, **WINNER}], "winner": WINNER}
RESULT = {
    "label": "S",
    "identity": "i",
    "split": "everything",
    "seed": 0,
    "outcome": "trained",
    "curve": [{"epoch": 1, "loss": 1.0, "accuracy": None}],
    "seconds": 1.0,
    "parameters": 1,
    "macs": 1,
    "data": {"fingerprint": "f"},
}
JUDGED = {"version": 1, "name": "n", "results": [RESULT], "evaluations": [{"identity": "i"}]}
JOB = {
    "version": 1,
    "label": "S",
    "block": str(BLOCKS["S"]),
    "timm": None,
    "split": "train",
    "seed": 0,
    "data": "digits",
    "plan": {"data": {"name": "digits"}},
    "identity": "i",
}
INFO = {"splits": {"train": {"filenames": ["train-0.tar"], "num_samples": 3}}}


def trained_below(directory):
    for trained in read_trained(directory):
        assert trained.weights.parent == directory
        assert trained.id not in (".", "..") and "/" not in trained.id


READERS = {
    "selection": (SELECTION, "selection.json", lambda d: read_selection(d / "selection.json")),
    "result": (RESULT, "result.json", read_result),
    "judged": (JUDGED, "evaluations.json", read_judged),
    "trained": ([{"id": "S-0", **RESULT}], "results.json", trained_below),
    "job": (JOB, "job.json", read_job),
    "run": (RESULT, "trainings/a/result.json", read_run),
    "shards": (INFO, "_info.json", lambda d: read_shards(d, "train")),
}


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@FUZZ
def test_files_of_plain_values(name, data, tmp_path):
    tree, file, read = READERS[name]
    choices = altered(tree).map(text_of) | damaged(text_of(tree)) | st.just(DEEP.encode())
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.draw(choices))
    checked(read, tmp_path)


@given(data=st.data())
@FUZZ
def test_frozen_searches(data, finished, tmp_path):
    tree = json.loads((finished / "frozen" / "best.json").read_bytes())
    choices = altered(tree).map(text_of) | damaged(text_of(tree)) | st.just(DEEP.encode())
    (tmp_path / "best.json").write_bytes(data.draw(choices))
    checked(read_search_summary, tmp_path / "best.json")


@given(data=st.data())
@FUZZ
def test_kept_fronts(data, tmp_path):
    points = [Point(3, 50.0, 40.0, 10_000, 500, 1.5, str(BLOCKS["S"]))]
    write_front(points, tmp_path / "front.csv")
    content = (tmp_path / "front.csv").read_bytes()
    (tmp_path / "front.csv").write_bytes(data.draw(damaged(content)))
    found = checked(read_front, tmp_path / "front.csv")
    if found:
        draw_fronts(found)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from blockqnn.network import build_network

    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    shape = {"filters": (4,), "repeats": (1,), "num_classes": 2, "in_channels": 1}
    block = BLOCKS["inception"]
    metadata = {key: json.dumps(value) for key, value in shape.items()}
    metadata |= {"block": str(block), "skeleton": "cifar", "image_size": "8"}
    save_weights(build_network(block, **shape, skeleton="cifar"), path, metadata)
    return path.read_bytes()


@given(data=st.data())
@FUZZ
def test_weights(data, weights, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(data.draw(damaged(weights)))
    checked(load_weights, path)
    length = struct.unpack("<Q", weights[:8])[0]
    header = json.loads(weights[8 : 8 + length])
    del header["__metadata__"]["sha256"]
    header = data.draw(altered(header))
    text = text_of(header)
    path.write_bytes(struct.pack("<Q", len(text)) + text + weights[8 + length :])
    checked(load_weights, path)


@given(data=st.data())
@FUZZ
def test_prepared_images(data, tmp_path):
    path, buffer = tmp_path / "images.npz", io.BytesIO()
    pixels, labels = np.zeros((2, 2, 2, 1), np.uint8), np.zeros(2, np.int64)
    arrays = {
        f"{part}_{what}": value
        for part in ("train", "test")
        for what, value in (("pixels", pixels), ("labels", labels))
    }
    format = np.array("blockqnn images 1")
    np.savez(buffer, format=format, name=np.array("x"), classes=np.array(["a", "b"]), **arrays)
    path.write_bytes(buffer.getvalue())
    assert read_prepared(path).classes == ("a", "b")
    path.write_bytes(data.draw(damaged(buffer.getvalue())))
    checked(read_prepared, path)
    objects = np.array([Hostile()], dtype=object)
    np.savez(path, format=format, name=objects, classes=np.array(["a", "b"]), **arrays)
    assert checked(read_prepared, path) is None


@given(content=st.binary(max_size=50) | altered({"pid": 1, "host": "h", "since": 1.0}).map(text_of))
@FUZZ
def test_locks(content, tmp_path):
    lock = DirectoryLock(tmp_path)
    try:
        (tmp_path / "lock").write_bytes(content)
        with pytest.raises(DirectoryInUse):
            DirectoryLock(tmp_path)
    finally:
        lock.release()


@FUZZ
@given(data=st.data())
def test_tables_of_cells_and_blocks(data, tmp_path):
    heads = "# settings: {}\n", "key,code,outcome,accuracy,restarts,seconds\n"
    heads += ("code,cifar10_val_12ep,cifar10_test_200ep_mean\n",)
    texts = st.text(st.characters(codec="utf-8"), max_size=80)
    content = data.draw(st.binary(max_size=80) | texts.map(str.encode))
    if data.draw(st.booleans()):
        content = "".join(data.draw(st.lists(st.sampled_from(heads)))).encode() + content
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(content) if data.draw(st.booleans()) else content)
    with pytest.raises(UserError):
        read_nasbench201(path, "cifar10")
    with pytest.raises(UserError):
        BlockBenchmark(read_block_table(path), path)
