"""blockqnn train: selection and final trainings in processes of their own, as a user sees them."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from ports import LOOPBACK, listening
from safetensors import safe_open
from tiny_search import finish, small_disk, tiny_settings
from tiny_trainings import Place, ended, sentence, untouched

from blockqnn.errors import SearchError, SettingsError
from blockqnn.search.history import read_search
from blockqnn.settings import TrainingWorkers
from blockqnn.space import AS_SET, Block
from blockqnn.storage import DirectoryLock
from blockqnn.workers.leash import descendants
from blockqnn.workers.training_processes import TrainingProcesses
from blockqnn.zoo import BLOCKS
from evaluation.stages.selection import Contender, read_selection, winner_code, write_selection
from flows.cli import main
from flows.final_trainings import PlannedTrainings


@pytest.fixture(scope="module")
def place(tmp_path_factory, api):
    """With a search of made-up outcomes."""
    place = Place(tmp_path_factory.mktemp("train"), api)
    place.search()
    return place


@pytest.fixture(scope="module")
def trained(place):
    """All steps of the plan run to their end, two trainings at a time; what it printed."""
    status, output, errors = place.call(
        "train", "--to", place.path / "out", "--set", "workers.parallel=2"
    )
    assert status == 0, errors
    return output


def result(directory):
    return json.loads((directory / "result.json").read_text())


def test_the_searchs_best_blocks_are_ranked_on_held_out_images(place, trained):
    selection = read_selection(place.run / "selection.json")
    best = read_search(place.runs / "tiny").best(2)
    assert {row["number"] for row in selection["ranking"]} == {r.candidate.number for r in best}
    assert {row["block"] for row in selection["ranking"]} == {str(r.candidate.block) for r in best}
    for row in selection["ranking"]:
        found = result(place.run / "trainings" / row["id"])
        assert (found["split"], found["seed"], found["block"]) == ("train", 3, row["block"])
        assert found["curve"][-1]["accuracy"] == found["accuracy"] == row["accuracy"]
        assert found["data"]["held_out_images"] == 90
    accuracies = [row["accuracy"] for row in selection["ranking"]]
    assert accuracies == sorted(accuracies, reverse=True)
    first = selection["ranking"][0]
    assert selection["winner"] == {name: first[name] for name in ("block", "accuracy", "number")}
    assert selection["search"] == "tiny"


def test_the_winner_and_the_others_are_trained_on_everything(place, trained):
    trainings = place.trainings()
    finals = {name: path for name, path in trainings.items() if "-everything-" in name}
    assert set(finals) == {
        "winner-everything-0",
        "residual-everything-0",
        "test_resnet-everything-0",
    }
    winner = read_selection(place.run / "selection.json")["winner"]["block"]
    subjects = {"winner": winner, "residual": str(BLOCKS["residual"]), "test_resnet": None}
    for path in finals.values():
        found = result(path)
        assert found["block"] == subjects[found["label"]]
        assert found["timm"] == ("test_resnet" if found["label"] == "test_resnet" else None)
        assert (found["data"]["train_images"], found["data"]["held_out_images"]) == (300, 0)
        assert [entry["epoch"] for entry in found["curve"]] == [1, 2]
        assert all("accuracy" not in entry for entry in found["curve"])
    assert len(trainings) == 5


def test_the_table_and_the_progress_are_printed(place, trained):
    for label in ("winner", "residual", "test_resnet"):
        assert f"{label}-everything-0" in trained
        row = next(line for line in trained.splitlines() if line.startswith(f"{label} "))
        assert row.split()[1:4] == ["all", "0", "2"]
    assert "train-digits 5/5" in trained
    assert max(map(len, trained.split("network ")[-1].splitlines())) <= 80


def test_outputs_for_a_pipeline_are_frozen(place, trained):
    out = place.path / "out"
    assert (out / "selection.json").read_bytes() == (place.run / "selection.json").read_bytes()
    for name, directory in place.trainings().items():
        label, split = name.split("-")[0], name.split("-")[-2]
        if split == "everything":
            weights = out / label / "seed-0.safetensors"
            assert weights.read_bytes() == (directory / "weights.safetensors").read_bytes()
            (row,) = json.loads((out / label / "results.json").read_text())
            whole = result(directory)
            assert row == {
                "id": directory.name,
                **{k: v for k, v in whole.items() if k not in ("begun", "finished")},
            }
            with safe_open(weights, "pt") as file:
                assert file.metadata()["label"] == label
    assert not list(out.rglob("*.tmp"))


def test_the_same_command_waits_its_turn_and_trains_nothing_again(place, trained):
    before, selection = untouched(place.run), (place.run / "selection.json").read_bytes()
    frozen = {path: path.read_bytes() for path in (place.path / "out").rglob("*.json")}
    lock = DirectoryLock(place.run)
    try:
        status, _, errors = place.call("train")
        assert status == 1
        assert "is in use by process" in sentence(errors)
        process = place.start("train", "--wait", "--to", place.path / "out")
        first = process.stderr.readline()
        assert first.startswith("blockqnn: waiting: ")
        assert "is in use by process" in first
    finally:
        lock.release()
    status, output, errors = ended(process)
    assert status == 0, errors
    assert output.count("(done before)") == 5
    selected = {path: stamp for path, stamp in before.items() if path.name != "selection.json"}
    assert selected.items() <= untouched(place.run).items()
    assert (place.run / "selection.json").read_bytes() == selection
    assert {path: path.read_bytes() for path in frozen} == frozen


def test_prepared_jobs_are_those_that_would_be_trained(place, trained, monkeypatch, capsys):
    monkeypatch.chdir(place.path)
    assert main(["train", "--prepare", "--step", "final", "--networks", "residual"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("torchrun ")
    assert line.endswith(f"-m blockqnn.training.final runs/train-digits/trainings/{done(place)}")
    changed = ["--set", "recipe.epochs=1"]
    assert main(["train", "--prepare", "--step", "final", "--networks", "residual", *changed]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    job = place.path / line.split()[-1] / "job.json"
    assert json.loads(job.read_text())["plan"]["recipe"]["epochs"] == 1
    assert not line.endswith(done(place))


def done(place):
    """The training of `residual` that has a result."""
    (found,) = place.run.glob("trainings/residual-*/result.json")
    return found.parent.name


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--data", "mnist"], 2, "data is 'mnist': choose one of digits"),
        (["--networks", "S"], 2, "networks has 'S': choose among winner, residual, test_resnet"),
        (["--set", "blocks=[residual,residual]"], 2, "name each network once"),
        (["--set", "blocks=[Z]"], 2, "blocks has 'Z'"),
        (["--set", "recipe.epoch=1"], 2, "recipe.epoch is not a setting: did you mean epochs?"),
        (["--set", "top=1", "search=null"], 2, "search is None"),
        (["--set", "top=0", "--networks", "winner"], 2, "networks has 'winner'"),
        (["--name", "a/b"], 2, "name is 'a/b'"),
        (["--prepare", "--set", "compare=[resnt18]", "top=0"], 2, "did you mean resnet18"),
        (
            ["--prepare", "--set", "compare=[vit_tiny_patch16_224]", "top=0"],
            2,
            "does not take 8x8 images",
        ),
        (["--prepare", "--set", "search=absent"], 1, "there is no search in runs/absent"),
        (["--prepare", "--set", "search=absent.json"], 1, "cannot read the best blocks"),
        (["--prepare", "--step", "selection", "--set", "top=0"], 2, "top is 0"),
        (
            ["--prepare", "--step", "final", "--name", "new"],
            1,
            "run blockqnn train --step selection first",
        ),
        (["--prepare", "--winner", "nowhere.json"], 1, "there is no nowhere.json"),
        (["--prepare", "--set", "data.name=cifar10", "data.root=none"], 2, "data.download=true"),
    ],
)
def test_wrong_use_is_one_sentence(place, monkeypatch, capsys, arguments, status, said):
    monkeypatch.chdir(place.path)
    assert main(["train", *arguments]) == status
    assert said in sentence(capsys.readouterr().err)


def test_a_search_that_is_absent_or_in_the_way(place):
    status, _, errors = place.call("train", "--set", "search=absent", "--name", "other")
    assert status == 1
    assert "there is no search in runs/absent" in sentence(errors)
    status, _, errors = place.call("train", "--name", "tiny")
    assert status == 2
    assert "name is 'tiny', which a search has" in sentence(errors)


def test_a_diverged_training_is_a_result(place):
    changes = ["recipe.learning_rate=1e30", "recipe.schedule=step", "workers.parallel=2"]
    status, output, errors = place.call(
        "train", "--networks", "residual", "--name", "wild", "--set", *changes
    )
    assert status == 0, errors
    assert "residual-everything-0" in output
    assert "diverged: " in output
    status, _, errors = place.call(
        "train", "--step", "selection", "--name", "wild", "--set", *changes
    )
    assert status == 1
    assert "none of the 2 best blocks of search tiny can be trained" in sentence(errors)
    assert not (place.runs / "wild" / "selection.json").exists()


def test_networks_keep_the_shape_that_was_designed(tmp_path, capsys):
    place = Place(tmp_path)
    space = {"max_index": 4, "skeletons": ["half"], "repeats": [1, 2]}
    finish(place.runs / "tiny", tiny_settings(space=space, network={"filters": [8]}))
    by_hand = "plain:cifar:1:shortcut"
    changes = {"top": 3, "blocks": [by_hand], "compare": [], "network.match": "macs"}
    planned = PlannedTrainings(place.run, place.runs, place.plan(**changes), "digits")
    contenders = planned.work("selection", None).contenders
    best = [result.candidate for result in read_search(place.runs / "tiny").best(3)]
    assert [each.number for each in contenders] == [candidate.number for candidate in best]

    def network(directory):
        return json.loads((directory / "job.json").read_text())["plan"]["network"]

    for contender, candidate in zip(contenders, best, strict=True):
        own = network(contender.directories[0])
        assert (own["skeleton"], own["repeats"]) == ("half", candidate.shape.repeats[0])
    results = {each.directories[0]: outcome(50.0 + each.number) for each in contenders}
    write_selection(place.run, "tiny", contenders, results)
    selection = read_selection(place.run / "selection.json")
    assert [row["shape"] for row in selection["ranking"]] == [
        str(candidate.shape) for candidate in sorted(best, key=lambda c: -c.number)
    ]
    won = max(best, key=lambda candidate: candidate.number)
    assert winner_code(selection) == f"{won.block}:half:{won.shape.repeats[0]}"
    (directory,) = planned.final("winner")
    own = network(directory)
    assert (own["skeleton"], own["repeats"]) == ("half", won.shape.repeats[0])
    (directory,) = planned.final(by_hand)
    own = network(directory)
    assert (own["skeleton"], own["repeats"], own["connections"]) == ("cifar", 1, "shortcut")
    assert main(["show", "plain:half:2"]) == 0
    assert "half, filters (32, 64, 128), repeats 2, 32x32" in capsys.readouterr().out


def test_a_disk_that_fills_up_and_is_freed(place, tmp_path):
    with small_disk(tmp_path / "disk", 400) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(b"\0" * 360_000)
        arguments = ["--runs", disk, "--networks", "residual"]
        status, _, errors = place.call("train", *arguments)
        assert status == 1, errors
        assert "No space left" in sentence(errors)
        assert not list(disk.rglob("result.json"))
        ballast.unlink()
        status, _, errors = place.call("train", *arguments)
        assert status == 0, errors
        assert list(disk.rglob("result.json"))


@pytest.fixture
def contenders(tmp_path):
    """Five blocks, best of the search first."""
    block = Block.parse("(1,1,3,0,0)(2,7,0,0,0)")
    return [Contender(n, block, AS_SET, (tmp_path / str(n),)) for n in (40, 30, 20, 10, 0)]


def outcome(accuracy):
    kind = "diverged" if accuracy is None else "trained"
    common = {"parameters": 1, "macs": 2, "seconds": 3.0, "reason": "the loss was not finite"}
    return {"label": "block", "outcome": kind, "accuracy": accuracy, **common}


def test_ranking_a_diverged_training_never_wins_and_equals_keep_the_searchs_order(
    tmp_path, contenders
):
    accuracies = [None, 50.0, 60.0, 60.0, 0.0]
    results = {
        each.directories[0]: outcome(accuracy)
        for each, accuracy in zip(contenders, accuracies, strict=True)
    }
    selection = write_selection(tmp_path, "mine", contenders, results)
    assert [row["number"] for row in selection["ranking"]] == [20, 10, 30, 0, 40]
    assert [row["rank"] for row in selection["ranking"]] == [1, 2, 3, 4, 5]
    assert selection["winner"]["number"] == 20
    assert read_selection(tmp_path / "selection.json") == selection
    all_diverged = {each.directories[0]: outcome(None) for each in contenders}
    with pytest.raises(SearchError, match="none of the 5 best blocks of search mine .*not finite"):
        write_selection(tmp_path, "mine", contenders, all_diverged)


def test_the_mean_of_several_seeds_ranks_and_no_seed_may_diverge(tmp_path):
    block = Block.parse("(1,1,3,0,0)(2,7,0,0,0)")
    accuracies = {1: (50.0, 90.0), 2: (71.0, 72.0), 3: (99.0, None)}
    contenders = [
        Contender(n, block, AS_SET, (tmp_path / f"{n}-0", tmp_path / f"{n}-1")) for n in accuracies
    ]
    results = {
        place: outcome(accuracy)
        for each in contenders
        for place, accuracy in zip(each.directories, accuracies[each.number], strict=True)
    }
    selection = write_selection(tmp_path, "mine", contenders, results)
    shown = [(row["number"], row["accuracy"], row["seconds"]) for row in selection["ranking"]]
    assert shown == [(2, 71.5, 6.0), (1, 70.0, 6.0), (3, None, 6.0)]
    assert selection["ranking"][0]["accuracies"] == [71.0, 72.0]
    assert selection["winner"]["accuracy"] == 71.5


SHAPELESS = '{"version": 1, "winner": {"block": "(1,7,0,0,0)", "shape": 5}}'


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', '{"version": 99}', SHAPELESS])
def test_a_damaged_selection_is_refused(tmp_path, content):
    path = tmp_path / "selection.json"
    path.write_text(content)
    with pytest.raises(SearchError, match="again with blockqnn train --step selection"):
        read_selection(path)


@pytest.mark.parametrize(
    ("workers", "slots", "options"),
    [
        ({"devices": ("cpu",), "threads": 3}, 1, ["--device", "cpu", "--threads", "3"]),
        ({"devices": ("cpu", "cpu"), "threads": 1}, 2, ["--device", "cpu", "--threads", "1"]),
        ({"devices": ("cpu",), "parallel": 4, "threads": 1}, 4, ["--threads", "1", "--leash"]),
    ],
)
def test_devices_are_dealt_out(tmp_path, workers, slots, options):
    trainings = TrainingProcesses(TrainingWorkers(**workers))
    assert trainings.slots == slots
    command = trainings.command(tmp_path, ["cpu"])
    assert " ".join(options) in " ".join(command)
    assert command[1:4] == ["-m", "blockqnn.training.final", str(tmp_path)]


def test_several_processes_go_through_torchrun(tmp_path):
    trainings = TrainingProcesses(TrainingWorkers(devices=("cpu", "cpu"), processes=2, threads=1))
    command = trainings.command(tmp_path, ["cpu", "cpu"], tmp_path)
    assert command[1:5] == ["-m", "torch.distributed.run", "--nproc-per-node", "2"]
    assert trainings.slots == 1
    with pytest.raises(SettingsError, match="device is 'cuda:99'"):
        TrainingProcesses(TrainingWorkers(devices=("cuda:99",)))


def test_several_processes_open_no_port_to_others(tmp_path, monkeypatch):
    """torchrun unpickles what comes in at the port that it would have."""
    place, scratch = Place(tmp_path / "place"), tmp_path / "a place%20"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    plan = place.plan(**{"recipe.epochs": 15})
    directory = place.job("residual", plan, block=BLOCKS["residual"])
    trainings = TrainingProcesses(TrainingWorkers(devices=("cpu", "cpu"), processes=2, threads=1))
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(trainings.train, directory)
        seen = 0
        while not training.done():
            at = listening(descendants(os.getpid()))
            assert at <= LOOPBACK
            seen += (directory / "progress.json").exists()
            time.sleep(0.1)
        assert training.result()["devices"] == 2
    assert seen
    assert not list(scratch.iterdir())
