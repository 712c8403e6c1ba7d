"""What the final trainings of a run and their evaluations come to: one row for each network."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, TypeVar, cast

from blockqnn.cost.match import TOLERANCE, Matched
from blockqnn.errors import SearchError
from blockqnn.storage import read_json
from blockqnn.training.final.result import TrainingResult
from evaluation.candidates.front import front_of
from evaluation.metrics import wilson

Record = Mapping[str, Any]
"""The content of a JSON file: a result, an evaluation, a selection, or a part of one."""
R = TypeVar("R", bound=Mapping[str, Any])


@dataclass(frozen=True)
class Run:
    """The contents of the files of a run's final trainings."""

    name: str
    results: tuple[TrainingResult, ...]
    """The content of each finished training's result.json."""
    evaluations: Mapping[str, Record]
    """The evaluations on the test images, by the identity of their training."""
    selection: Record | None = None
    """The content of selection.json, None where there was no selection."""
    unfinished: int = 0
    """Trainings without a result."""
    superseded: int = 0
    """Finished trainings left out: others of their label and split have later settings."""

    @property
    def final(self) -> list[TrainingResult]:
        """The trainings on all images, and those that were evaluated."""
        return [
            result
            for result in self.results
            if result["outcome"] == "trained"
            and (result["split"] == "everything" or result["identity"] in self.evaluations)
        ]

    @property
    def lost(self) -> list[TrainingResult]:
        """The final trainings that diverged or did not fit: they give no network."""
        return [r for r in self.results if r["split"] == "everything" and r["outcome"] != "trained"]

    @property
    def selecting(self) -> list[TrainingResult]:
        """The trainings on the search's split, with some images held out."""
        return [result for result in self.results if result["split"] == "train"]


@dataclass(frozen=True, kw_only=True)
class Network:
    """One row of the result table: a network, trained with some seeds."""

    label: str
    block: str | None
    timm: str | None
    split: str
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    """Accuracies on the test images in percent, one for each seed that was evaluated."""
    top5: tuple[float, ...]
    """Top-5 accuracies on the test images in percent."""
    images: int
    """Number of test images."""
    nll: float | None
    ece: float | None
    larger: tuple[float, ...]
    """Accuracies in percent on the test images at the larger size `larger_size`."""
    larger_size: int | None
    held_out: float | None
    """Best held-out accuracy, in percent, of the network's training for the selection."""
    parameters: int
    macs: int
    epochs: int
    seconds: float
    """Mean seconds of one training."""
    images_per_second: float | None
    """Median over all epochs of the images trained on in a second."""
    speed: tuple[Record, ...]
    """Latency and throughput, one record for each device and batch."""
    matched: Matched | None
    """What it costs alike with block plain's network."""
    results: tuple[TrainingResult, ...] = field(repr=False)
    evaluations: tuple[Record, ...] = field(repr=False)

    @property
    def accuracy(self) -> float | None:
        """Mean accuracy on the test images over the evaluated seeds, in percent."""
        return fmean(self.accuracies) if self.accuracies else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation of the accuracy over the seeds; None for a single seed."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % Wilson interval of the mean accuracy in percent, by the number of test images."""
        if self.accuracy is None:
            return None
        return wilson(self.accuracy / 100 * self.images, self.images)

    @property
    def latency(self) -> float | None:
        """Milliseconds that the network takes for the smallest batch that was measured."""
        return next((float(row["milliseconds"]) for row in self.speed if _measured(row)), None)


def read_run(run: Path, trainings: Collection[str] | None = None) -> Run:
    """The finished trainings in the directory `run`, with their evaluations and selection.

    Of trainings with one label and split but several settings, only those with the latest settings
    count; `trainings` names the directories to take instead. Unknown keys are passed over. Raises
    `SearchError` when no training has finished, or a file is damaged.
    """
    directory = run / "trainings"
    if not directory.is_dir():
        raise SearchError(
            f"there are no final trainings in {run}: begin with blockqnn train, or give --name"
        )
    chosen = (
        sorted(directory.iterdir()) if trainings is None else map(directory.joinpath, trainings)
    )
    places = [place for place in chosen if (place / "job.json").exists() or _result_of(place)]
    found = [_checked(_read(path), path) for place in places if (path := _result_of(place))]
    if not found:
        raise SearchError(
            f"none of the {len(places)} trainings in {run} has finished: go on with blockqnn train"
        )
    results = list(found) if trainings is not None else _latest(found)
    selection = run / "selection.json"
    return Run(
        run.resolve().name,
        tuple(results),
        _evaluations(_read(path) for path in sorted((run / "evaluations").glob("*.json"))),
        _read(selection) if selection.exists() else None,
        len(places) - len(found),
        len(found) - len(results),
    )


def run_of(
    name: str,
    results: Iterable[Record],
    evaluations: Iterable[Record],
    selection: Record | None = None,
) -> Run:
    """A run made of contents of result.json and of evaluations at hand, all of which count."""
    known = cast(tuple[TrainingResult, ...], tuple(results))
    return Run(name, known, _evaluations(evaluations), selection)


def _evaluations(found: Iterable[Record]) -> dict[str, Record]:
    return {str(evaluation["identity"]): evaluation for evaluation in found}


def compare(run: Run) -> list[Network]:
    """One row for each network of the final trainings, over all its seeds: the most accurate first,
    of equals the cheaper first, those not evaluated last.
    """
    rows = [_network(members, run) for members in _by(run.final, "label", "split").values()]
    return sorted(rows, key=lambda row: (row.accuracy is None, -(row.accuracy or 0), row.macs))


MATCHED = {
    "macs": "as many multiply-accumulates as",
    "parameters": "as many parameters as",
    "seconds": "as long to train as",
    "latency": "as long for a forward pass as",
}
"""What networks of equal cost take, by what they were matched in."""


def cost_in_words(networks: Sequence[Network]) -> str:
    """Whether networks may be compared by their accuracies alone, in a sentence or two."""
    matched = [network.matched for network in networks]
    known = [each for each in matched if each is not None]
    kinds = {each["by"] for each in known}
    if len(kinds) != 1:
        return (
            "These networks differ in cost (network.match makes it equal): hold accuracies against "
            "parameters and multiply-accumulates."
        )
    (kind,) = kinds
    off = [
        f"{network.label} {each['ratio']:.2f} times"
        for network, each in zip(networks, matched, strict=True)
        if each is not None and abs(each["ratio"] - 1) > TOLERANCE
    ]
    free = [network.label for network in networks if network.matched is None]
    says = f"Every network takes {MATCHED[kind]} block plain's, within {100 * TOLERANCE:.0f} %"
    says += f" (network.match={kind})"
    if off:
        says += f", but {', '.join(off)} that: widths in steps of 8 come no nearer"
    if free:
        says += f"; {', '.join(free)} has the widths that were given"
    return says + "."


def pareto(networks: Iterable[Network]) -> list[Network]:
    """The Pareto front of the evaluated networks, by multiply-accumulates; the cheapest first."""
    tested = [network for network in networks if network.accuracy is not None]
    return front_of(tested, lambda row: row.macs, lambda row: row.accuracy or 0)


def device_hours(results: Iterable[Record]) -> float:
    """Hours of training, each hour counted once for each device."""
    return sum(float(r["seconds"]) * (r.get("devices") or 1) for r in results) / 3600


def _network(results: Sequence[TrainingResult], run: Run) -> Network:
    results = sorted(results, key=lambda result: int(result["seed"]))
    last = results[-1]
    judged = [run.evaluations[r["identity"]] for r in results if r["identity"] in run.evaluations]
    tests = [evaluation["test"] for evaluation in judged]
    larger = [evaluation["larger"] for evaluation in judged if evaluation.get("larger")]
    rates = [
        e["images_per_second"] for r in results for e in r["curve"] if "images_per_second" in e
    ]
    return Network(
        label=str(last["label"]),
        block=last.get("block"),
        timm=last.get("timm"),
        split=str(last["split"]),
        seeds=tuple(int(result["seed"]) for result in results),
        accuracies=tuple(test["top1"]["value"] for test in tests),
        top5=tuple(test["top5"]["value"] for test in tests if test.get("top5")),
        images=int(tests[0]["images"]) if tests else 0,
        nll=_mean(test.get("nll") for test in tests),
        ece=_mean(test.get("ece") for test in tests),
        larger=tuple(test["top1"]["value"] for test in larger),
        larger_size=int(larger[0]["size"]) if larger else None,
        held_out=_held_out(last, run),
        parameters=int(last["parameters"]),
        macs=int(last["macs"]),
        epochs=len(last["curve"]),
        seconds=fmean(result["seconds"] for result in results),
        images_per_second=median(rates) if rates else None,
        speed=_speeds(judged),
        matched=last.get("matched"),
        results=tuple(results),
        evaluations=tuple(judged),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _held_out(final: TrainingResult, run: Run) -> float | None:
    """The best held-out accuracy of the same network on the search's split, whatever the label."""
    scores = [
        entry["accuracy"]
        for result in run.results
        if result["split"] == "train"
        and all(result.get(name) == final.get(name) for name in ("block", "timm", "network"))
        for entry in result["curve"]
        if entry.get("accuracy") is not None
    ]
    return max(scores, default=None)


def _speeds(evaluations: Sequence[Record]) -> tuple[Record, ...]:
    """One record for each device and batch: medians over the seeds of a network."""
    rows = [row for evaluation in evaluations for row in evaluation.get("speed") or ()]
    merged = []
    for members in _by(rows, "device", "threads", "precision", "batch").values():
        measured = [row for row in members if _measured(row)]
        names = ("milliseconds", "low", "high", "images_per_second")
        middle = {name: median(row[name] for row in measured) for name in names if measured}
        merged.append({**members[0], **middle})
    return tuple(sorted(merged, key=lambda row: int(row["batch"])))


def _measured(row: Record) -> bool:
    return row.get("milliseconds") is not None


def _latest(results: Sequence[TrainingResult]) -> list[TrainingResult]:
    """The results whose settings are those of the last to finish with their label and split."""
    kept = []
    for members in _by(results, "label", "split").values():
        last = max(members, key=lambda result: float(result.get("finished") or 0))
        kept += [result for result in members if _settings(result) == _settings(last)]
    return kept


def _settings(result: TrainingResult) -> tuple[Any, ...]:
    """The settings that a result depends on, all but the seed."""
    fingerprint = result["data"]["fingerprint"]
    names = ("block", "timm", "network", "recipe")
    return (*(json.dumps(result.get(name), sort_keys=True) for name in names), fingerprint)


def _by(records: Iterable[R], *names: str) -> dict[tuple[Any, ...], list[R]]:
    groups: dict[tuple[Any, ...], list[R]] = {}
    for record in records:
        groups.setdefault(tuple(record.get(name) for name in names), []).append(record)
    return groups


def _result_of(place: Path) -> Path | None:
    path = place / "result.json"
    return path if path.exists() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except OSError as error:
        raise SearchError(f"cannot read {path} ({error.strerror})") from None
    except ValueError as error:
        raise SearchError(f"{path} is damaged ({error}): delete it and make it again") from None
    if not isinstance(content, dict):
        raise SearchError(f"{path} is damaged (not an object): delete it and make it again")
    return content


NEEDED: dict[str, type | tuple[type, ...]] = {
    "label": str,
    "identity": str,
    "split": str,
    "seed": int,
    "outcome": str,
    "curve": list,
    "seconds": (int, float),
    "parameters": int,
    "macs": int,
    "data": dict,
}
"""Keys that every result.json has, and the types of their values."""


def _checked(result: dict[str, Any], path: Path) -> TrainingResult:
    missing = [name for name, kind in NEEDED.items() if not isinstance(result.get(name), kind)]
    if missing or "fingerprint" not in result["data"]:
        raise SearchError(
            f"{path} lacks {', '.join(missing) or 'data.fingerprint'}: delete it and train again "
            "with blockqnn train"
        )
    return cast(TrainingResult, result)
