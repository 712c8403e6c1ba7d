"""The report's sections on where the networks come from: search, blocks, selection, cost, and what
is needed to make it all again.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from blockqnn.space import LONGEST, Block
from evaluation.front import fronts
from evaluation.plots.style import plain_count
from evaluation.plots.trainings import held_out_curves
from evaluation.report.document import Column, Element, Facts, Pictures, Section, Table, Text
from evaluation.report.picture import block_plate, plot
from evaluation.report.results_sections import number
from evaluation.report.search_summary import Searched
from evaluation.results import Network, Record, Run, device_hours

DRAWN = 6
"""Blocks drawn."""
FRONTS = {"macs": "MACs", "parameters": "parameters", "latency": "latency"}


def search_section(searched: Searched) -> Section:
    """What was searched and found."""
    rows = [
        [
            str(rank),
            str(found.number),
            number(found.reward, 2),
            number(found.accuracy, 2),
            plain_count(found.macs),
            plain_count(found.parameters),
            str(found.block),
        ]
        for rank, found in enumerate(searched.best, start=1)
    ]
    columns = [
        Column("rank"),
        Column("candidate"),
        Column("reward"),
        Column("held-out accuracy", unit="%"),
        Column("MACs"),
        Column("parameters"),
        Column("code", "code"),
    ]
    return Section(
        "Search",
        [
            *(Text(text) for text in searched.sentences),
            Pictures([searched.plate]),
            Table(columns, rows, "The best blocks by reward, as small networks trained briefly"),
            *_front(searched),
        ],
    )


def _front(searched: Searched) -> Iterator[Element]:
    """What is most accurate for what it costs: the picture, and the blocks on the fronts."""
    if searched.front_plate is None:
        return
    yield Pictures([searched.front_plate])
    measured = any(point.latency is not None for point in searched.front)
    on = fronts(searched.front)
    rows = [
        [
            str(point.number),
            number(point.accuracy, 2),
            number(point.reward, 2),
            plain_count(point.macs),
            plain_count(point.parameters),
            *([number(point.latency, 2)] if measured else []),
            ", ".join(FRONTS[name] for name, front in on.items() if point in front),
            point.code,
        ]
        for point in searched.front
    ]
    columns = [
        Column("candidate"),
        Column("held-out accuracy", unit="%"),
        Column("reward"),
        Column("MACs"),
        Column("parameters"),
        *([Column("latency", unit="ms")] if measured else []),
        Column("on the front of", "text"),
        Column("code", "code"),
    ]
    yield Table(columns, rows, "The blocks on the fronts")


def blocks_section(networks: Sequence[Network], selection: Record | None) -> Section | None:
    """Drawings of the blocks that were finally trained; None when there is none."""
    codes: dict[str, list[str]] = {}
    for network in networks:
        if network.block:
            codes.setdefault(network.block, []).append(network.label)
    if not codes:
        return None
    winner = (selection or {}).get("winner") or {}
    plates = []
    for number_, (code, labels) in enumerate(list(codes.items())[:DRAWN], start=1):
        block = Block.parse(code, LONGEST)
        words = (
            f"{' and '.join(labels)}: {len(block.layers) - 1} layers, density {block.density:.2f}"
        )
        if code == winner.get("block") and winner.get("number") is not None:
            words += f", candidate {winner['number']} of the search"
        plates.append(block_plate(block, f"block_{number_}", f"Block {labels[0]}", f"{words}."))
    more = len(codes) - len(plates)
    elements: list[Element] = [Pictures(plates)]
    if more > 0:
        elements.append(Text(f"Not drawn: {more} more.", quiet=True))
    return Section("Blocks", elements)


def selection_section(run: Run) -> Section | None:
    """The ranking on held-out images; None when there was no selection."""
    selection = run.selection
    if not selection or not selection.get("ranking"):
        return None
    winner = (selection.get("winner") or {}).get("block")
    ranking: list[dict[str, Any]] = selection["ranking"]
    rows = [
        [
            str(row.get("rank", i)),
            str(row.get("label", "")),
            "–" if row.get("number") is None else str(row["number"]),
            number(row.get("accuracy"), 2) if row.get("accuracy") is not None else "diverged",
            plain_count(row["parameters"]),
            plain_count(row["macs"]),
        ]
        for i, row in enumerate(ranking, start=1)
    ]
    columns = [
        Column("rank"),
        Column("block", "text"),
        Column("candidate"),
        Column("held-out accuracy", unit="%"),
        Column("parameters"),
        Column("MACs"),
    ]
    marked = frozenset(i for i, row in enumerate(ranking) if row.get("block") == winner)
    held_out = next((r["data"].get("held_out_images") for r in run.selecting), None)
    on = f"{held_out:,} images" if held_out else "images"
    text = (
        f"The best blocks of search {selection.get('search', '')}, trained by the final recipe on "
        f"the search's training images and ranked on {on} held out of them. Only the first goes on."
    )
    contenders = [
        (str(row.get("label", "")), result["curve"])
        for row in ranking
        for result in run.selecting
        if result.get("block") == row.get("block") and result["curve"]
    ]
    elements: list[Element] = [Text(text), Table(columns, rows, marked=marked)]
    if contenders:
        picture = plot(
            held_out_curves(contenders),
            "selection",
            "Held-out accuracy by epoch of the blocks in the selection",
            "Held-out accuracy of the contenders while they were trained.",
        )
        elements.append(Pictures([picture]))
    return Section("Selection", elements)


def cost_section(run: Run, networks: Sequence[Network], searched: Searched | None) -> Section:
    """Device-hours of everything."""
    parts: list[tuple[str, int, float]] = []
    if searched is not None:
        parts.append((f"search {searched.name}", searched.trainings, searched.hours))
    selecting = selection_results(run)
    if selecting:
        parts.append(("selection", len(selecting), device_hours(selecting)))
    for network in networks:
        parts.append((network.label, len(network.results), device_hours(network.results)))
    if lost := lost_results(run):
        parts.append(("diverged", len(lost), device_hours(lost)))
    total = sum(hours for _, _, hours in parts)
    parts.append(("all of it", sum(count for _, count, _ in parts), total))
    digits = 4 if total < 1 else 2
    rows = [[name, f"{count:,}", number(hours, digits)] for name, count, hours in parts]
    columns = [Column("what", "text"), Column("trainings"), Column("time", unit="device-hours")]
    text = (
        "Time of training, each second counted once a device; waiting, loading of data and "
        "evaluation are not in it."
    )
    table = Table(columns, rows, marked=frozenset({len(rows) - 1}))
    return Section("Cost", [Text(text, quiet=True), table])


def selection_results(run: Run) -> list[Record]:
    """The trainings of the selection: those it ranks, of which selection.json itself says the
    seconds where their results are not at hand; without a ranking all on the search's split.
    """
    ranking = (run.selection or {}).get("ranking") or []
    if not run.selecting:
        return [row for row in ranking if row.get("seconds")]
    ranked = {row.get("block") for row in ranking}
    evaluated = run.evaluations.keys()
    return [
        result
        for result in run.selecting
        if (result.get("block") in ranked if ranked else result["identity"] not in evaluated)
    ]


def lost_results(run: Run) -> list[Record]:
    """The final trainings that came to nothing."""
    return [r for r in run.results if r["split"] == "everything" and r["outcome"] != "trained"]


def provenance(
    run: Run, networks: Sequence[Network], searched: Searched | None, command: str
) -> Section:
    """How selection and test were kept apart, and what it takes to make all of this again."""
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
            *(Text(text) for text in _apart(run, networks, searched)),
            Facts([(name, value) for name, value in rows if value]),
            *([Facts(recipe, "The recipe, every setting of it", code=True)] if recipe else []),
        ],
    )


def _apart(run: Run, networks: Sequence[Network], searched: Searched | None) -> Iterator[str]:
    steps = []
    if searched is not None:
        held_out = searched.held_out_images
        on = f"{held_out:,} images" if held_out else "images"
        steps.append(f"The search scored its blocks on {on} held out of the training set.")
    if run.selection:
        steps.append("The selection ranked the best of them on held-out images too.")
    splits = {network.split for network in networks}
    count = networks[0].results[-1]["data"].get("train_images")
    if "everything" in splits:
        images = f"all {count:,} training images" if count else "all training images"
        steps.append(f"The final networks were trained on {images}, to their last epoch.")
    if "train" in splits:
        steps.append(
            "Some of the networks above were trained without the held-out images: their numbers "
            "are not those of final trainings."
        )
    if any(network.accuracies for network in networks):
        steps.append(
            "Only these, with the seeds given, have met the test images; no choice rests on them."
        )
    yield " ".join(steps)


def _data_in_words(data: Record) -> str:
    size, channels = data.get("image_size"), data.get("in_channels")
    kind = {1: "grey", 3: "colour"}.get(channels or 0, f"{channels}-channel")
    return (
        f"{data.get('name')}, {len(data['classes']):,} classes, {kind} images of {size} × {size} "
        f"pixels, {data.get('train_images', 0):,} to train on"
    )


def _network_in_words(results: Sequence[Record]) -> str:
    shapes = [r["network"] for r in results if r.get("network")]
    return _distinct(
        f"{shape.get('skeleton')} skeleton, filters {_plain(shape.get('filters'))}, "
        f"repeats {_plain(shape.get('repeats'))}"
        + (f", connections {shape['connections']}" if "connections" in shape else "")
        for shape in shapes
    )


def _versions(results: Sequence[Record]) -> str:
    return _distinct(
        ", ".join(f"{name} {version}" for name, version in (r.get("versions") or {}).items())
        for r in results
    )


def _when(results: Sequence[Record]) -> str:
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
