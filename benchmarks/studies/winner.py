"""What a search of three hours on two cores ends with, beside networks of the same cost.

    python -m benchmarks.studies.winner [--data ROOT] [--task cifar10] [--quick] [--to DIR]

With --data (the official files under ROOT) all that is missing is done, many hours on two cores,
and the same command goes on where it was stopped: everything lies under runs/. In turn:

1. the search of the task's profile, and the selection among its best designs;
2. a random search as long in core seconds, and the selection among its best;
3. of each hand-made block, the best of one, two and three blocks a stage, with shortcuts and
   without, by one training of each for half of the epochs;
4. the final trainings of all of them and of timm's models, three seeds each, all as long to train
   as block plain; and once more, all as quick in a forward pass;
5. the evaluation on the test images.

Either way the tables of docs/results/winner/TASK.md are written between their marks from what is
kept in TASK.json beside it; what is said about them is kept.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy import stats

from benchmarks import machine
from benchmarks.__main__ import commit
from benchmarks.studies.many_trainings import Training, read_kept, train_many
from benchmarks.studies.pages import RESULTS, put
from blockqnn.cost.match import TOLERANCE
from blockqnn.params import load_plan
from blockqnn.search.costs import Costs
from blockqnn.search.history import History, read_search
from blockqnn.settings import Recipe
from blockqnn.space import AS_SET
from blockqnn.storage import read_json, write_json
from blockqnn.zoo import BLOCKS, named_design
from evaluation.drawing import draw_block
from evaluation.stages.selection import read_selection, winner_code

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params.yaml"
RUNS = ROOT / "runs"
SEEDS = 3
HAND_MADE = ("plain", "residual", "inception")
PUBLISHED = ("A:half:1-1", "B:half:1-1", "S:half:1-1")
"""Published blocks, in two stages: with three even the narrowest networks cost more than plain."""
TIMM = ("resnet10t", "resnet14t", "convnext_atto")


@dataclass(frozen=True)
class TaskOf:
    """One data set: the profile of its search, its plan, and settings beside theirs, `{root}` for
    the directory that was given.
    """

    profile: str
    plan: str
    both: Mapping[str, Any]
    """Settings of search and plan."""
    search: Mapping[str, Any] = field(default_factory=dict)
    final: Mapping[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ("plain:half", "residual:half")
    """Hand-made networks in a skeleton that the search may choose."""


CIFAR100 = {"name": "cifar100", "root": "{root}", "images": 5000, "holdout": 0.2}
IMAGENETTE = {"root": "{root}/imagenette2-64", "image_size": 64, "holdout": 0.2}
TASKS = {
    "cifar10": TaskOf("cifar10-laptop", "cifar10", {"data.root": "{root}"}),
    "cifar100-50": TaskOf(  # 50 images a class
        "own-images",
        "cifar100",
        {"data": CIFAR100, "network.skeleton": "cifar", "network.filters": [16, 32, 64]},
        {
            "recipe.epochs": 4,
            "rungs": [{"share": 0.25, "epochs": 8}, {"share": 0.25, "epochs": 30}],
            "space.skeletons": ["cifar", "half"],
        },
        {"recipe.epochs": 60, "workers.parallel": 2, "workers.threads": 1},
    ),
    "imagenette": TaskOf(
        "own-images",
        "imagenet",
        {"network.skeleton": "half", "network.filters": [32, 64, 128], "network.repeats": 1},
        {"data": {"name": "folder", **IMAGENETTE}},
        {
            "data": {"name": "imagenet", "loaders": 1, **IMAGENETTE},
            "recipe": {"base": "short", "epochs": 30, "crop": 0},
            "evaluation.larger": None,
            "workers.parallel": 2,
            "workers.threads": 1,
        },
    ),
}


def blockqnn(command: str, *arguments: str) -> None:
    """Run a command of blockqnn here; an error ends this script."""
    subprocess.run([sys.executable, "-m", "flows.cli", command, *arguments], cwd=ROOT, check=True)


def told(settings: Any, root: str) -> Any:
    """The settings with the directory of the images in its place."""
    if isinstance(settings, Mapping):
        return {name: told(value, root) for name, value in settings.items()}
    return settings.replace("{root}", root) if isinstance(settings, str) else settings


def spelled(changes: Mapping[str, Any]) -> list[str]:
    """Settings as a command line has them."""
    return ["--set", *(f"{name}={json.dumps(value)}" for name, value in changes.items())]


def search(name: str, task: TaskOf, root: str, seconds: float | None = None) -> History:
    """The search of the task's profile; for `seconds` a random one that is ended after so many
    core seconds.
    """
    directory = RUNS / name
    changes = told({**task.both, **task.search, "tracking": False}, root)
    if seconds is not None:
        changes |= {"agent": {"kind": "random"}, "schedule": [[1.0, 10_000]]}
    arguments = ["--name", name, "--profile", task.profile, *spelled(changes)]
    if seconds is None:
        blockqnn("search", *arguments)
        return read_search(directory)
    while not (directory / "journal.jsonl").exists() or spent(read_search(directory)) < seconds:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "search", *arguments], cwd=ROOT
        )
        while process.poll() is None:
            time.sleep(10)
            began = (directory / "journal.jsonl").exists()
            if began and spent(read_search(directory)) >= seconds:
                process.send_signal(signal.SIGTERM)
                process.wait()
                break
        else:
            if process.returncode:
                raise SystemExit(f"the random search ended with status {process.returncode}")
    return read_search(directory)


def spent(history: History) -> float:
    """Core seconds of all trainings of a search."""
    return 3600 * history.device_hours


def plan_changes(task: TaskOf, root: str) -> dict[str, Any]:
    """The settings of the task's plan beside those of the profile."""
    changes: dict[str, Any] = told({**task.both, **task.final, "tracking": False}, root)
    return changes


def select(name: str, task: TaskOf, root: str) -> str:
    """The design that wins the selection among a search's best, as its code and shape."""
    run = f"{name}-selection"
    changes = plan_changes(task, root) | {"search": name, "top": 6, "selection_seeds": 2}
    blockqnn(
        "train", "--data", task.plan, "--profile", task.profile, "--name", run,
        "--step", "selection", *spelled(changes),
    )  # fmt: skip
    return winner_code(read_selection(RUNS / run / "selection.json"))


def best_variants(name: str, task: TaskOf, root: str) -> dict[str, str]:
    """Of each hand-made block the best of its variants of equal cost, by held-out accuracy."""
    history = read_search(RUNS / name)
    settings = history.settings
    plan = load_plan(PARAMS, task.plan, task.profile, plan_changes(task, root))
    costs = Costs(history.settings, history.task, history.prices)
    recipe: Recipe = replace(
        plan.recipe, epochs=max(2, plan.recipe.epochs // 2), crop=settings.recipe.crop
    )
    wanted: dict[str, list[str]] = {}
    trainings = []
    plain = costs.plain.seconds_an_image or 1.0
    for block, skeleton in product(HAND_MADE, ("cifar", "half")):
        if wanted.get(block):
            continue  # half is for blocks of which no network is narrow enough otherwise
        for repeats, connections in product((1, 2, 3), ("none", "shortcut")):
            design = f"{block}:{skeleton}:{repeats}:{connections}"
            shape = costs.matched(BLOCKS[block], named_design(design)[2])
            ratio = (costs.of(BLOCKS[block], shape).seconds_an_image or 0.0) / plain
            if abs(ratio - 1) > TOLERANCE or (block, connections) == ("plain", "shortcut"):
                continue  # the latter is residual
            own = replace(settings.shaped(shape), recipe=recipe, rungs=())
            trainings.append(Training(BLOCKS[block], own, design))
            wanted.setdefault(block, []).append(design)
    kept = RUNS / f"{name}-variants.jsonl"
    train_many(trainings, kept)
    outcomes = read_kept(kept)
    return {
        block: max(designs, key=lambda design: outcomes[design].accuracy or 0.0)
        for block, designs in wanted.items()
    }


def finals(
    name: str, task: TaskOf, root: str, match: str, designs: Sequence[str]
) -> dict[str, Any]:
    """Test accuracies in percent of all contenders, by label, and what they are."""
    run = f"{name}-{match}"
    changes = plan_changes(task, root) | {
        "blocks": list(designs),
        "compare": list(TIMM),
        "seeds": SEEDS,
        "top": 0,
        "network.match": match,
    }
    plan = ["--data", task.plan, "--profile", task.profile, "--name", run, *spelled(changes)]
    blockqnn("train", *plan)
    blockqnn("evaluate", *plan, "--to", str(RUNS / f"{run}-judged"))
    rows: dict[str, Any] = {}
    results = {}
    for path in sorted((RUNS / run / "trainings").glob("*/result.json")):
        result = read_json(path)
        results[result["identity"]] = result
    for path in sorted((RUNS / run / "evaluations").glob("*.json")):
        evaluation = read_json(path)
        result = results[evaluation["identity"]]
        row = rows.setdefault(
            result["label"],
            {
                "accuracies": {},
                "network": result["network"] or {"timm": result["timm"]},
                "ratio": (result.get("matched") or {}).get("ratio"),
                "parameters": result["parameters"],
                "macs": result["macs"],
                "seconds": [],
                "milliseconds": [],
            },
        )
        row["accuracies"][str(result["seed"])] = evaluation["test"]["top1"]["value"]
        row["seconds"].append(result["seconds"])
        row["milliseconds"].append(evaluation["speed"][0]["milliseconds"])
    return rows


def table(rows: Mapping[str, Any], names: Mapping[str, str], winner: str) -> Iterator[str]:
    """A row a contender, the most accurate first: how far the winner is ahead, seed by seed."""
    yield (
        "| network | test accuracy (%) | winner ahead by | seconds of a training | ms a pass | "
        "parameters | MMACs |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|"
    best = rows[winner]["accuracies"]
    order = sorted(rows, key=lambda label: -fmean(rows[label]["accuracies"].values()))
    for label in order:
        row = rows[label]
        each = row["accuracies"]
        spread = np.std(list(each.values()), ddof=1) if len(each) > 1 else 0.0
        ahead = ""
        shared = sorted(best.keys() & each.keys())
        if label != winner and len(shared) > 1:
            low, middle, high = paired([best[s] - each[s] for s in shared])
            ahead = f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"
        yield (
            f"| {names.get(label, label)} | {fmean(each.values()):.2f} ± {spread:.2f} | {ahead} | "
            f"{fmean(row['seconds']):.0f} | {fmean(row['milliseconds']):.2f} | "
            f"{row['parameters']:,} | {row['macs'] / 1e6:.1f} |"
        )


def paired(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean of paired differences with the ends of its 95 % interval by Student's t."""
    count = len(differences)
    half = stats.t.ppf(0.975, count - 1) * np.std(differences, ddof=1) / count**0.5
    return fmean(differences) - half, fmean(differences), fmean(differences) + half


def measure(task_name: str, root: str) -> dict[str, Any]:
    """Do what is missing, and return what is kept."""
    task, name = TASKS[task_name], f"winner-{task_name}"
    found = search(name, task, root)
    winner = select(name, task, root)
    seconds = spent(found)
    rival = search(f"{name}-random", task, root, seconds)
    chance = select(f"{name}-random", task, root)
    variants = best_variants(name, task, root)
    designs = list(dict.fromkeys([winner, chance, *variants.values(), *task.also, *PUBLISHED]))
    return {
        "machine": machine.describe(),
        "commit": commit(),
        "search": {"candidates": len(found.results), "core_seconds": round(seconds)},
        "random": {"candidates": len(rival.results), "core_seconds": round(spent(rival))},
        "winner": winner,
        "random_winner": chance,
        "variants": variants,
        "labels": {design: named_design(design)[0] for design in designs},
        **{match: finals(name, task, root, match, designs) for match in ("seconds", "latency")},
    }


def write_page(kept: Mapping[str, Any], task: str, to: Path) -> None:
    """The tables and the drawing of the winner."""
    labels = kept["labels"]
    winner = labels[kept["winner"]]
    names = {label: f"`{label}`" for label in labels.values()}
    names[winner] = f"**winner of the search**, `{kept['winner']}`"
    if kept["random_winner"] != kept["winner"]:
        names[labels[kept["random_winner"]]] = f"winner of random search, `{kept['random_winner']}`"
    took = [
        f"{each['candidates']} candidates in {each['core_seconds'] / 3600:.1f} core hours"
        for each in (kept["search"], kept["random"])
    ]
    lines = [
        f"{kept['machine']}; {kept['commit']}. The search: {took[0]}; random search: {took[1]}."
    ]
    for match, what in (("seconds", "as long to train"), ("latency", "as quick a forward pass")):
        lines += ["", f"**Networks with {what} as block plain's**, {SEEDS} seeds:", ""]
        lines += table(kept[match], names, winner)
    put(to / f"{task}.md", "tables", "\n".join(lines))
    block, shape = named_design(kept["winner"])[1:]
    title = f"Winner on {task}" + (f", {shape}" if shape != AS_SET else "")
    draw_block(block, to / f"{task}.png", title)


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="directory with the images; does what is missing")
    parser.add_argument("--task", choices=TASKS, default="cifar10")
    parser.add_argument("--quick", action="store_true", help="tables of made-up numbers, nowhere")
    parser.add_argument("--to", type=Path, default=RESULTS / "winner")
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory() as nowhere:
            write_page(made_up(), options.task, Path(nowhere))
            text = (Path(nowhere) / f"{options.task}.md").read_text()
        ahead = next(line for line in text.splitlines() if line.startswith("| winner of random"))
        print(f"winner: ahead of random search by {ahead.split('|')[3].strip()} in made-up numbers")
        return
    file = options.to / f"{options.task}.json"
    if options.data:
        kept = measure(options.task, str(Path(options.data).resolve()))
        options.to.mkdir(parents=True, exist_ok=True)
        write_json(kept, file)
    write_page(read_json(file), options.task, options.to)


def made_up() -> dict[str, Any]:
    """What `measure` returns, with numbers of nobody's."""
    designs = {"plain:half:1-2": [90.0, 91.0, 92.0], "residual": [89.0, 89.5, 91.0]}
    rows = {
        label: {
            "accuracies": {str(seed): value for seed, value in enumerate(values)},
            "parameters": 1000,
            "macs": 10**6,
            "seconds": [1.0],
            "milliseconds": [1.0],
        }
        for label, values in designs.items()
    }
    spent_by = {"candidates": 2, "core_seconds": 3600}
    return {
        "machine": machine.describe(), "commit": commit(), "search": spent_by, "random": spent_by,
        "winner": "plain:half:1-2", "random_winner": "residual",
        "labels": {name: name for name in designs}, "seconds": rows, "latency": rows,
    }  # fmt: skip


if __name__ == "__main__":
    main()
