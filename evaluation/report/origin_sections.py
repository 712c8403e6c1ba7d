"""The report's sections on where the networks come from: search, blocks, selection, cost, and what
is needed to make it all again.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from statistics import stdev
from typing import Any

from blockqnn.space import LONGEST, Block, design_of
from blockqnn.training.final.result import ResultImages, TrainingResult
from evaluation.candidates.front import Point, fronts
from evaluation.plots.style import plain_count
from evaluation.plots.trainings import held_out_curves
from evaluation.report.document import (
    Column,
    Element,
    Facts,
    Pictures,
    Section,
    Table,
    Text,
    table_of,
)
from evaluation.report.picture import block_picture, wide_plot
from evaluation.report.results_sections import number
from evaluation.report.search_summary import Searched
from evaluation.results import Network, Record, Run, device_hours
from evaluation.stages.selection import WINNER

DRAWN = 6
"""Most blocks that are drawn."""
FRONTS = {"macs": "MACs", "parameters": "parameters", "latency": "latency"}
"""Names of the costs in the table of blocks on a front."""


def search_section(searched: Searched) -> Section:
    """The section on what was searched and found."""
    table = table_of(
        enumerate(searched.best, start=1),
        [
            (Column("rank"), lambda found: str(found[0])),
            (Column("candidate"), lambda found: str(found[1].number)),
            (Column("reward"), lambda found: number(found[1].reward, 2)),
            (Column("held-out accuracy", unit="%"), lambda found: number(found[1].accuracy, 2)),
            (Column("MACs"), lambda found: plain_count(found[1].macs)),
            (Column("parameters"), lambda found: plain_count(found[1].parameters)),
            (Column("code", "code"), lambda found: str(design_of(found[1].block, found[1].shape))),
        ],
        "The best blocks by reward, as small networks trained briefly",
    )
    elements: list[Element] = [*map(Text, searched.sentences), Pictures([searched.picture]), table]
    if searched.front_picture is not None:
        elements += [Pictures([searched.front_picture]), _front_table(searched.front)]
    if searched.importance_picture is not None:
        elements += [Pictures([searched.importance_picture])]
    return Section("Search", elements)


def _front_table(points: Sequence[Point]) -> Table:
    on = fronts(points)
    measured = any(point.latency is not None for point in points)
    return table_of(
        points,
        [
            (Column("candidate"), lambda point: str(point.number)),
            (Column("held-out accuracy", unit="%"), lambda point: number(point.accuracy, 2)),
            (Column("reward"), lambda point: number(point.reward, 2)),
            (Column("MACs"), lambda point: plain_count(point.macs)),
            (Column("parameters"), lambda point: plain_count(point.parameters)),
            (
                Column("latency", unit="ms") if measured else None,
                lambda point: number(point.latency, 2),
            ),
            (
                Column("on the front of", "text"),
                lambda point: ", ".join(FRONTS[name] for name in on if point in on[name]),
            ),
            (Column("code", "code"), lambda point: point.code),
        ],
        "The blocks on the fronts",
    )


def blocks_section(networks: Sequence[Network], selection: Record | None) -> Section | None:
    """The section with drawings of the finally trained blocks; None when there is none."""
    codes: dict[str, dict[str, str]] = {}
    for network in networks:
        if network.block:
            shape = _shape_in_words(network.results[-1].get("network") or {})
            codes.setdefault(network.block, {})[network.label] = shape
    if not codes:
        return None
    winner = (selection or {}).get("winner") or {}
    drawings = []
    for number_, (code, labels) in enumerate(list(codes.items())[:DRAWN], start=1):
        block = Block.parse(code, LONGEST)
        words = (
            f"{' and '.join(labels)}: {len(block.layers) - 1} layers, density {block.density:.2f}"
        )
        if WINNER in labels and winner.get("number") is not None:
            words += f", candidate {winner['number']} of the search"
        shapes = {shape for shape in labels.values() if shape}
        if len(shapes) == 1:
            words += f". {shapes.pop().capitalize()}"
        else:
            words += "".join(f". {name}: {shape}" for name, shape in labels.items() if shape)
        name = f"Block {next(iter(labels))}"
        drawings.append(block_picture(block, f"block_{number_}", name, f"{words}."))
    more = len(codes) - len(drawings)
    elements: list[Element] = [Pictures(drawings)]
    if more > 0:
        elements.append(Text(f"Not drawn: {more} more.", quiet=True))
    return Section("Blocks", elements)


def _shape_in_words(network: Mapping[str, Any]) -> str:
    """The blocks of each stage, their filters and connections; "" where that is not known."""
    filters, repeats = network.get("filters"), network.get("repeats")
    if not filters or not repeats:
        return ""
    each = repeats if isinstance(repeats, Sequence) else [repeats] * len(filters)
    words = f"{'-'.join(map(str, each))} blocks in stages of {'-'.join(map(str, filters))} filters"
    connections = network.get("connections") or "none"
    return words if connections == "none" else f"{words}, connections {connections}"


def selection_section(run: Run, networks: Sequence[Network]) -> Section | None:
    """The section with the ranking on held-out images; None when there was no selection. What went
    on to be one of the `networks` has the same colour here as there."""
    selection = run.selection
    if not selection or not selection.get("ranking"):
        return None
    ranking: list[dict[str, Any]] = selection["ranking"]
    held_out = next((r["data"].get("held_out_images") for r in run.selecting), None)
    on = f"{held_out:,} images" if held_out else "images"
    text = (
        f"The best blocks of search {selection.get('search', '')}, trained by the final recipe on "
        f"the search's training images and ranked on {on} held out of them. Only the first goes on."
    )
    if seeds := max(len(row.get("accuracies") or [0]) for row in ranking) - 1:
        text += f" Each was trained with {seeds + 1} seeds: the mean ranks, ± is their deviation."
    winner = (selection.get("winner") or {}).get("number")
    elements: list[Element] = [Text(text), _ranking_table(ranking, winner)]
    contenders, numbers = [], []
    rows = {network.label: number for number, network in enumerate(networks)}
    for others, row in enumerate(ranking, start=len(networks)):
        if curves := [r["curve"] for r in run.selecting if _is_of(r, row) and r["curve"]]:
            label = str(row.get("label", ""))
            is_winner = winner is not None and row.get("number") == winner
            contenders.append((label, curves))
            numbers.append(rows.get(label, rows.get(WINNER, others) if is_winner else others))
    if contenders:
        picture = wide_plot(
            partial(held_out_curves, contenders, numbers),
            "selection",
            "Held-out accuracy by epoch of the blocks in the selection",
            "Held-out accuracy of the contenders while they were trained.",
        )
        elements.append(Pictures([picture]))
    return Section("Selection", elements)


def _is_of(result: Record, row: Record) -> bool:
    """Whether a training is one of those that a row of the ranking is made of."""
    return bool(result.get("label") == row.get("label"))


def _ranking_table(ranking: Sequence[Record], winner: int | None) -> Table:
    def candidate(row: Record) -> str:
        return "–" if row.get("number") is None else str(row["number"])

    def accuracy(row: Record) -> str:
        known = row.get("accuracy")
        if known is None:
            return "diverged"
        each = row.get("accuracies") or [known]
        spread = f" ± {number(stdev(each), 2)}" if len(each) > 1 else ""
        return f"{number(known, 2)}{spread}"

    shaped = any(row.get("shape") for row in ranking)
    return table_of(
        [{"rank": i, **row} for i, row in enumerate(ranking, start=1)],
        [
            (Column("rank"), lambda row: str(row["rank"])),
            (Column("block", "text"), lambda row: str(row.get("label", ""))),
            (Column("candidate"), candidate),
            (Column("held-out accuracy", unit="%"), accuracy),
            (Column("parameters"), lambda row: plain_count(row["parameters"])),
            (Column("MACs"), lambda row: plain_count(row["macs"])),
            (Column("shape", "text") if shaped else None, lambda row: row.get("shape") or "–"),
        ],
        marked=[i for i, row in enumerate(ranking) if row.get("number") == winner],
    )


def cost_section(run: Run, networks: Sequence[Network], searched: Searched | None) -> Section:
    """The section with the device-hours of search, selection and final trainings."""
    parts: list[tuple[str, int, float]] = []
    if searched is not None:
        parts.append((f"search {searched.name}", searched.trainings, searched.hours))
    trainings = [
        ("selection", selection_results(run)),
        *((network.label, network.results) for network in networks),
        ("diverged", run.lost),
    ]
    parts += [(name, len(found), device_hours(found)) for name, found in trainings if found]
    total = sum(hours for _, _, hours in parts)
    parts.append(("all of it", sum(count for _, count, _ in parts), total))
    digits = 4 if total < 1 else 2
    table = table_of(
        parts,
        [
            (Column("what", "text"), lambda part: part[0]),
            (Column("trainings"), lambda part: f"{part[1]:,}"),
            (Column("time", unit="device-hours"), lambda part: number(part[2], digits)),
        ],
        marked=[len(parts) - 1],
    )
    text = (
        "Time of training, each second counted once a device; waiting, loading of data and "
        "evaluation are not in it."
    )
    return Section("Cost", [Text(text, quiet=True), table])


def selection_results(run: Run) -> list[Record]:
    """The trainings of the selection: those it ranks, or without a ranking all on the search's
    split. Where no results are at hand, the rows of selection.json, which know the seconds.
    """
    ranking = (run.selection or {}).get("ranking") or []
    if not run.selecting:
        return [row for row in ranking if row.get("seconds")]
    ranked = {row.get("label") for row in ranking}
    evaluated = run.evaluations.keys()
    return [
        result
        for result in run.selecting
        if (result.get("label") in ranked if ranked else result["identity"] not in evaluated)
    ]


def provenance(
    run: Run, networks: Sequence[Network], searched: Searched | None, command: str
) -> Section:
    """The section on how test images were kept apart, and how all of this can be made again."""
    last = networks[0].results[-1]
    data = last["data"]
    results = [result for network in networks for result in network.results]
    rows = [
        ("command", command),
        ("commit", _distinct(r.get("commit") for r in results)),
        ("data", _data_in_words(data)),
        ("fingerprint", _distinct(r["data"].get("fingerprint") for r in results)),
        ("versions", _versions(results)),
        ("device", _distinct(r.get("device") for r in results)),
        ("precision", _distinct(r.get("precision") for r in results)),
        ("network", _network_in_words(results)),
        ("finished", _when(results)),
    ]
    recipe = [(name, _plain(value)) for name, value in (last.get("recipe") or {}).items()]
    return Section(
        "How it was made",
        [
            Text(" ".join(_apart(run, networks, searched))),
            Facts([(name, value) for name, value in rows if value]),
            *([Facts(recipe, "The recipe, every setting of it", code=True)] if recipe else []),
        ],
    )


def _apart(run: Run, networks: Sequence[Network], searched: Searched | None) -> Iterator[str]:
    if searched is not None:
        held_out = searched.held_out_images
        on = f"{held_out:,} images" if held_out else "images"
        yield f"The search scored its blocks on {on} held out of the training set."
    if run.selection:
        yield "The selection ranked the best of them on held-out images too."
    splits = {network.split for network in networks}
    count = networks[0].results[-1]["data"].get("train_images")
    if "everything" in splits:
        images = f"all {count:,} training images" if count else "all training images"
        yield f"The final networks were trained on {images}, to their last epoch."
    if "train" in splits:
        yield (
            "Some of the networks above were trained without the held-out images: their numbers "
            "are not those of final trainings."
        )
    if any(network.accuracies for network in networks):
        yield (
            "Only these, with the seeds given, have met the test images; no choice rests on them."
        )


def _data_in_words(data: ResultImages) -> str:
    size, channels = data.get("image_size"), data.get("in_channels")
    kind = {1: "grey", 3: "colour"}.get(channels or 0, f"{channels}-channel")
    return (
        f"{data.get('name')}, {len(data['classes']):,} classes, {kind} images of {size} × {size} "
        f"pixels, {data.get('train_images', 0):,} to train on"
    )


def _network_in_words(results: Sequence[TrainingResult]) -> str:
    shapes = [shape for result in results if (shape := result.get("network"))]
    return _distinct(
        f"{shape.get('skeleton')} skeleton, filters {_plain(shape.get('filters'))}, "
        f"repeats {_plain(shape.get('repeats'))}"
        + (f", connections {shape['connections']}" if "connections" in shape else "")
        for shape in shapes
    )


def _versions(results: Sequence[TrainingResult]) -> str:
    return _distinct(
        ", ".join(f"{name} {version}" for name, version in (r.get("versions") or {}).items())
        for r in results
    )


def _when(results: Sequence[TrainingResult]) -> str:
    times = sorted(float(r["finished"]) for r in results if r.get("finished"))
    if not times:
        return ""
    first, last = (
        datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")
        for time in (times[0], times[-1])
    )
    return f"{first} to {last} UTC" if first != last else f"{last} UTC"


def _distinct(values: Any) -> str:
    return "; ".join(dict.fromkeys(str(value) for value in values if value))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
