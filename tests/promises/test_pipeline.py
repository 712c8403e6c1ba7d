"""The pipeline of dvc.yaml in a fresh clone: from nothing to the report through kills in every
stage, nothing to do when repeated, what a changed parameter runs again, sharing, experiments.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from blockqnn.workers import leash

ROOT = Path(__file__).parents[2]
PATIENCE = 900.0
"""Seconds for one stage on a machine that has other things to do."""

SMALL = {
    "search.batch": 6,
    "search.schedule": [[1.0, 2]],
    "search.space.max_index": 3,
    "search.data.images": 300,
    "search.network.filters": [4],
    "search.recipe.epochs": 1,
    "search.workers.count": 1,
    "search.tracking": False,
    "recipes.quick.epochs": 2,
    "recipes.quick.warmup_epochs": 0,
    "training.digits.data.images": 300,
    "training.digits.network.filters": [4],
    "training.digits.seeds": 1,
    "training.digits.top": 2,
    "training.digits.tracking": False,
    "training.digits.workers": {"parallel": 1, "threads": 1},
    "training.digits.blocks": ["plain"],
    "training.digits.compare": [],
    "evaluation.repeats": 2,
    "pipeline.networks": ["plain"],
}
STAGES = (
    "prepare@digits search selection train@digits-plain train-winner@digits evaluate@digits"
    " report@digits"
).split()
FINALS = {"train@digits-plain", "train-winner@digits"}


def git(place, *arguments):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=place, check=True, capture_output=True, text=True).stdout


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Pipeline:
    """A clone of the checkout, in which the clone's own code runs."""

    def __init__(self, place, home, api=None):
        self.place = place
        self.runs = place / "runs"
        self.trainings = self.runs / "train-digits" / "trainings"
        self.process = None
        self.log = home / f"{place.name}.log"
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(place),
            "PREFECT_HOME": str(home / "prefect"),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        }
        for name in ("BLOCKQNN_RUNS", "PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
            self.environment.pop(name, None)
        if api is not None:
            self.environment["PREFECT_API_URL"] = api

    def dvc(self, *arguments):
        """Output of a dvc command that succeeds."""
        done = subprocess.run(
            ["dvc", *arguments],
            cwd=self.place,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"dvc {arguments}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def repro(self, *arguments):
        """The stages that `dvc repro` runs to their ends."""
        return re.findall(r"Running stage '(\S+)'", self.dvc("repro", *arguments))

    def start(self):
        """Run `dvc repro` in the background."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["dvc", "repro"], cwd=self.place, env=self.environment, stdout=log, stderr=log
            )

    def until(self, condition):
        """Return when it holds, while `dvc repro` runs."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, f"ended too early: {self.said()[-3000:]}"
            assert time.monotonic() < deadline, f"waited in vain: {self.said()[-3000:]}"
            time.sleep(0.005)

    def said(self):
        return self.log.read_text()

    def runs_stage(self, stage):
        return f"Running stage '{stage}'" in self.said()

    def kill(self, *, family=True):
        """SIGKILL for dvc, and unless told otherwise for all that it started, which ends anyway."""
        started = leash.descendants(self.process.pid)
        for pid in [self.process.pid, *(started if family else ())]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 60
        while any(alive(pid) for pid in started):
            assert time.monotonic() < deadline, "a process outlived dvc"
            time.sleep(0.01)

    def set(self, values):
        """Change settings in params.yaml."""
        path = self.place / "params.yaml"
        tree = yaml.safe_load(path.read_text())
        for name, value in values.items():
            *branches, leaf = name.split(".")
            branch = tree
            for part in branches:
                branch = branch[part]
            branch[leaf] = value
        path.write_text(yaml.safe_dump(tree, sort_keys=False))

    def changed(self):
        """The stages that `dvc status` says have changed themselves."""
        return set(json.loads(self.dvc("status", "--json")))

    def json(self, name):
        return json.loads((self.place / name).read_text())

    def results(self, pattern="*"):
        """Finished trainings and what shows that they were not written again."""
        found = {}
        for path in self.trainings.glob(f"{pattern}/result.json"):
            status = path.stat()
            found[path.parent.name] = (status.st_ino, status.st_mtime_ns)
        return found

    def outcomes(self):
        """Lines of outcomes in the searches' journals."""
        lines = []
        for path in self.runs.glob("pipeline-*/journal.jsonl"):
            lines += [line for line in path.read_bytes().splitlines() if b'"outcome"' in line]
        return lines

    def commit(self, message):
        git(self.place, "add", "--all")
        git(self.place, "commit", "--quiet", "--message", message)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a checkout")
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def pipeline(home, api):
    """Cloned, and made small."""
    git(home, "clone", "--quiet", str(ROOT), "checkout")
    pipeline = Pipeline(home / "checkout", home, api)
    pipeline.set(SMALL)
    pipeline.commit("Small settings")
    yield pipeline
    if pipeline.process is not None and pipeline.process.poll() is None:
        pipeline.kill()


@pytest.mark.timeout(4 * PATIENCE)
def test_killed_in_every_stage_it_goes_from_nothing_to_the_report(pipeline):
    finished = {}

    def nothing_repeated():
        """TrainingProcesses once finished are as they were."""
        now = pipeline.results()
        assert {name: now.get(name) for name in finished} == finished
        finished.update(now)

    def kill_when(stage, condition, **how):
        pipeline.start()
        pipeline.until(lambda: pipeline.runs_stage(stage) and condition())
        pipeline.kill(**how)
        assert not pipeline.runs_stage(STAGES[STAGES.index(stage) + 1])
        nothing_repeated()

    def begun(label):
        return any(pipeline.trainings.glob(f"{label}-*/progress.json"))

    kill_when("prepare@digits", (pipeline.place / "results/digits/plan.json").exists)
    kill_when("search", lambda: len(pipeline.outcomes()) >= 6)
    journal = pipeline.outcomes()
    kill_when("selection", lambda: len(pipeline.results()) >= 1)
    assert pipeline.outcomes()[: len(journal)] == journal
    assert len(finished) == 1
    kill_when("train@digits-plain", lambda: begun("plain"))
    # dvc alone: the command that it started saves its work and ends
    kill_when("train-winner@digits", lambda: begun("winner"), family=False)
    judged = pipeline.runs / "train-digits" / "evaluations"
    kill_when("evaluate@digits", lambda: any(judged.glob("*.json")))
    evaluations = {path: path.stat().st_mtime_ns for path in judged.glob("*.json")}
    pipeline.start()
    pipeline.until(lambda: pipeline.runs_stage("report@digits"))
    pipeline.kill()

    assert pipeline.repro() == ["report@digits"]
    nothing_repeated()
    assert {path: path.stat().st_mtime_ns for path in evaluations} == evaluations
    assert len(pipeline.outcomes()) == 12
    assert len(finished) == 6  # two with two seeds each in the selection, then two networks
    report = (pipeline.place / "results/digits/report/report.html").read_text()
    assert "winner" in report and "plain" in report
    assert pipeline.json("results/search/best.json")["search"] in report


@pytest.fixture(scope="module")
def finished(pipeline):
    """The pipeline when all is done and committed."""
    pipeline.repro()
    pipeline.commit("Results")
    return pipeline


def test_repeated_it_has_nothing_to_do(finished):
    assert finished.repro() == []
    assert finished.changed() == set()


def test_git_has_the_tables_and_dvc_the_rest(finished):
    git_has = git(finished.place, "ls-files").splitlines()
    tables = {"dvc.lock", "results/search/best.json", "results/digits/evaluation/metrics.json"}
    assert tables <= set(git_has)
    assert not [name for name in git_has if name.startswith(("models/", "prepared/", "runs/"))]
    assert not git(finished.place, "status", "--porcelain")


@pytest.mark.parametrize(
    ("change", "prepared", "then"),
    [
        ({"search.seed": 7}, False, {"search"}),
        ({"evaluation.repeats": 3}, False, {"evaluate@digits"}),
        ({"search.workers.count": 2}, False, set()),
        ({"recipes.cifar-2018.epochs": 9}, True, set()),
        ({"training.digits.workers": {"parallel": 2}}, True, set()),
        ({"training.digits.top": 1}, True, {"selection"}),
        ({"training.digits.seeds": 3}, True, FINALS),
        ({"recipes.quick.epochs": 3}, True, {"selection", *FINALS}),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)
def test_a_changed_parameter_runs_again_what_depends_on_it(finished, change, prepared, then):
    """`then` is what has changed once the plan is spelled out again, if it has to be."""
    finished.set(change)
    try:
        if prepared:
            assert finished.changed() == {"prepare@digits"}
            assert finished.repro("prepare@digits") == ["prepare@digits"]
        assert finished.changed() == then
    finally:
        git(finished.place, "checkout", "--quiet", ".")


@pytest.mark.timeout(2 * PATIENCE)
def test_what_was_measured_again_goes_into_the_report(finished):
    finished.set({"evaluation.repeats": 3})
    assert finished.repro() == ["evaluate@digits", "report@digits"]
    finished.commit("Measured more often")


def test_metrics_plots_and_the_graph(finished):
    metrics = json.loads(finished.dvc("metrics", "show", "--json"))[""]["data"]
    scores = metrics["results/digits/evaluation/metrics.json"]["data"]["top1"]
    assert scores.keys() == {"plain", "winner"}
    assert all(0 <= score <= 100 for score in scores.values())
    assert "accuracy" in metrics["results/search/metrics.json"]["data"]["search"]

    finished.dvc("plots", "show")
    page = (finished.place / "dvc_plots" / "index.html").read_text()
    for name in ("Search, best so far", "digits, accuracy against cost", "digits, final trainings"):
        assert name in page
    assert page.count('"network": "winner"') >= 3  # a point, and an epoch each
    # without the internet, from which the page loads what draws those, it has the report's pictures
    pictures = re.findall(r'<img[^>]* src="([^"]+)"', page)
    report = finished.place / "results" / "digits" / "report" / "report"
    assert len(pictures) == len(list(report.glob("*.png"))) >= 3
    assert all((finished.place / "dvc_plots" / picture).stat().st_size for picture in pictures)

    edges = set(re.findall(r'"(\S+)" -> "(\S+)"', finished.dvc("dag", "--dot")))
    assert {
        ("prepare@digits", "search"),
        ("search", "selection"),
        ("selection", "train-winner@digits"),
        ("train@digits-plain", "evaluate@digits"),
        ("train-winner@digits", "evaluate@digits"),
        ("evaluate@digits", "report@digits"),
    } <= edges
    assert ("selection", "train@digits-plain") not in edges


def test_a_second_clone_gets_everything_back(finished, home):
    finished.dvc("remote", "add", "--default", "--force", "store", str(home / "store"))
    finished.commit("Remote")
    finished.dvc("push")
    git(home, "clone", "--quiet", str(finished.place), "second")
    second = Pipeline(home / "second", home)
    second.dvc("pull")
    assert second.changed() == set()
    assert second.repro() == []
    assert not second.runs.exists()
    for name in (
        "models/digits/winner/seed-0.safetensors",
        "models/digits/plain/seed-0.safetensors",
        "prepared/digits.npz",
        "results/digits/report/report.html",
    ):
        assert (second.place / name).read_bytes() == (finished.place / name).read_bytes()


@pytest.mark.slow  # minutes, of what the pipeline above does too
@pytest.mark.timeout(4 * PATIENCE)
def test_an_experiment_with_another_seed(finished):
    first = finished.json("results/search/best.json")
    finals = finished.results("plain-*")
    finished.dvc("exp", "run", "-S", "search.seed=1")
    other = finished.json("results/search/best.json")
    assert other["search"] != first["search"]
    assert len(list(finished.runs.glob("pipeline-*"))) == 2
    assert finished.results("plain-*") == finals
    shown = json.loads(finished.dvc("exp", "show", "--json"))
    seeds = [
        revision["data"]["params"]["params.yaml"]["data"]["search"]["seed"]
        for revision in [shown[0], *(e["revs"][0] for e in shown[1].get("experiments") or [])]
    ]
    assert seeds == [1, 1]
    assert finished.changed() == set()


def test_imagenet_is_there_once_its_directory_is_named(finished, tmp_path):
    assert "imagenet" not in finished.dvc("stage", "list", "--all")
    finished.set({"imagenet": [str(tmp_path)]})
    try:
        listed = finished.dvc("stage", "list", "--name-only").split()
        assert set(listed) - set(STAGES) == {
            f"imagenet-prepare@{tmp_path}",
            f"imagenet-train@{tmp_path}-S",
            f"imagenet-train@{tmp_path}-resnet50",
            f"imagenet-train-winner@{tmp_path}",
            f"imagenet-evaluate@{tmp_path}",
            f"imagenet@{tmp_path}",
        }
    finally:
        git(finished.place, "checkout", "--quiet", "params.yaml")
