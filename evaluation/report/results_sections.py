"""The report's sections on what the final networks came to: results, training, the best network,
speed, and published numbers beside them.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from statistics import fmean

from evaluation.class_names import readable_classes
from evaluation.plots.style import plain_count
from evaluation.plots.trainings import accuracy_against_cost, reliability, training_curves
from evaluation.published import published_on
from evaluation.report.document import (
    Column,
    Element,
    Matrix,
    Pictures,
    Section,
    SideBySide,
    Table,
    Text,
    table_of,
)
from evaluation.report.picture import plot, wide_plot
from evaluation.results import Network, Record, Run, cost_in_words

MATRIX_CLASSES = 20
"""Classes up to which the confusion matrix is shown whole, and every class in a table."""
WIDE = 1.5
"""Times the median at which the 95th percentile of a network's passes is doubted."""
SHOWN = 10
"""Most classes, and most confusions, in a table that does not list all of them."""


def spread(mean: float | None, std: float | None, digits: int = 2) -> str:
    """A mean with its standard deviation where there is one; a dash for None."""
    if mean is None:
        return "–"
    return f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if std is not None else "")


def number(value: float | None, digits: int) -> str:
    """A number with so many decimals and commas between thousands; a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"


def _mean(values: Sequence[float]) -> str:
    return number(fmean(values) if values else None, 2)


def _interval(low: float | None, high: float | None, digits: int = 2) -> str:
    return "–" if low is None else f"{number(low, digits)} to {number(high, digits)}"


def results(networks: Sequence[Network], front: Sequence[Network], run: Run) -> Section:
    """The section with the result table, what its numbers mean, and accuracy against cost."""
    size = next((n.larger_size for n in networks if n.larger_size), 0)
    batch = next((n.speed[0]["batch"] for n in networks if n.speed), None)
    top5 = Column("top-5", unit="%") if any(n.top5 for n in networks) else None
    larger = Column(f"at {size} px", unit="%") if any(n.larger for n in networks) else None
    latency = None if batch is None else Column("latency", unit=f"ms, batch {batch}")
    table = table_of(
        networks,
        [
            (Column("network", "text"), lambda n: n.label),
            (Column("test accuracy", unit="%"), lambda n: spread(n.accuracy, n.std)),
            (Column("95 % interval", unit="%"), lambda n: _interval(*n.interval or (None, None))),
            (top5, lambda n: _mean(n.top5)),
            (larger, lambda n: _mean(n.larger)),
            (Column("seeds"), lambda n: str(len(n.accuracies) or len(n.seeds))),
            (Column("ECE", unit="%"), lambda n: number(n.ece, 2)),
            (Column("parameters"), lambda n: plain_count(n.parameters)),
            (Column("MACs"), lambda n: plain_count(n.macs)),
            (latency, lambda n: number(n.latency, 2)),
        ],
        marked=[0] if networks[0].accuracy is not None else [],
    )
    return Section(
        "Results",
        [
            *(Text(text) for text in _in_words(networks)),
            table,
            Text(" ".join(_how_sure(networks, run)), quiet=True),
            *_cost_picture(networks, front),
        ],
    )


def _in_words(networks: Sequence[Network]) -> Iterator[str]:
    """Say how the best searched network compares with the best of timm, if both are tested."""
    ours = next((n for n in networks if n.block and n.accuracy is not None), None)
    other = next((n for n in networks if n.timm and n.accuracy is not None), None)
    if ours is None or other is None or ours.accuracy is None or other.accuracy is None:
        return
    difference = ours.accuracy - other.accuracy
    where = "above" if difference >= 0 else "below"
    a, b = ours.interval, other.interval
    overlap = a is not None and b is not None and a[0] <= b[1] and b[0] <= a[1]
    yield (
        f"The best block, {ours.label}, comes to {spread(ours.accuracy, ours.std)} %, "
        f"{abs(difference):.2f} points {where} the best of the networks it is compared with, "
        f"{other.label} ({spread(other.accuracy, other.std)} %), with "
        f"{ours.parameters / other.parameters:.2g} times its parameters and "
        f"{ours.macs / other.macs:.2g} times its multiply-accumulates. "
        + (
            f"Their 95 % intervals overlap: {ours.images:,} test images do not tell them apart "
            "for certain."
            if overlap
            else "Their 95 % intervals do not overlap."
        )
    )


def _how_sure(networks: Sequence[Network], run: Run) -> Iterator[str]:
    tested = [network for network in networks if network.accuracy is not None]
    if not tested:
        yield "None of these networks has met the test set yet: blockqnn evaluate does that."
        return
    if any(network.std is not None for network in tested):
        yield "Accuracy: mean ± sample standard deviation over the seeds, single centre crop."
    else:
        yield "Accuracy of one seed, single centre crop: how it varies with the seed is not known."
    yield (
        f"Interval: Wilson's, what {tested[0].images:,} test images leave open whatever the seed. "
        "ECE: expected calibration error over 15 equal-width bins of the confidence. MACs: "
        "multiply-accumulates of one image."
    )
    if len(networks) > 1:
        yield cost_in_words(networks)
    missing = [n.label for n in networks if n.accuracy is None]
    if missing:
        yield f"Not evaluated yet: {', '.join(missing)}."
    partly = [n.label for n in tested if len(n.accuracies) < len(n.seeds)]
    if partly:
        yield f"Not every seed is evaluated yet: {', '.join(partly)}."
    for result in run.lost:
        reason = f" ({result['reason']})" if result.get("reason") else ""
        yield f"{result['label']} with seed {result['seed']} {result['outcome']}{reason}."
    recipes = {str(sorted((r.get("recipe") or {}).items())) for n in tested for r in n.results}
    images = {r["data"]["fingerprint"] for n in tested for r in n.results}
    if len(recipes) > 1:
        yield "These networks were not all trained by the same recipe: compare with care."
    if len(images) > 1:
        yield "These networks were not all trained on the same images: compare with care."
    if len(recipes) == len(images) == 1 < len(tested):
        yield "All networks: the same recipe, the same images."
    if run.unfinished:
        yield f"Trainings still to finish: {run.unfinished}."
    if run.superseded:
        yield f"Left out, as trained with earlier settings: {run.superseded}."


def _cost_picture(networks: Sequence[Network], front: Sequence[Network]) -> Iterator[Element]:
    if len(front) == 0 or sum(n.accuracy is not None for n in networks) < 2:
        return
    names = ", ".join(network.label for network in front)
    several = any(network.std is not None for network in networks)
    bars = " Bars: one standard deviation over the seeds." if several else ""
    yield Pictures(
        [
            wide_plot(
                partial(accuracy_against_cost, networks, front),
                "pareto",
                "Test accuracy against multiply-accumulates, with the Pareto front",
                f"Accuracy against cost. No other network here is both cheaper and better than "
                f"those on the front: {names}.{bars}",
            )
        ]
    )


def training(networks: Sequence[Network]) -> Section:
    """The section with curves, time and throughput of the final trainings."""
    measured = any(_memory(network) is not None for network in networks)
    table = table_of(
        networks,
        [
            (Column("network", "text"), lambda n: n.label),
            (Column("epochs"), lambda n: str(n.epochs)),
            (Column("one training"), lambda n: duration(n.seconds)),
            (Column("images a second"), lambda n: number(n.images_per_second, 0)),
            (Column("memory", unit="GiB") if measured else None, lambda n: number(_memory(n), 1)),
            (Column("device", "text"), _device),
            (Column("precision", "text"), lambda n: str(n.results[-1].get("precision") or "–")),
        ],
    )
    several = any(len(network.seeds) > 1 for network in networks)
    shade = " Lines are means over the seeds, the shade reaches from the lowest to the highest."
    picture = wide_plot(
        partial(training_curves, networks),
        "training_curves",
        "Training loss and training accuracy by epoch",
        "Loss and accuracy on the augmented training images as they are trained on."
        + (shade if several else ""),
    )
    return Section("Training", [Pictures([picture]), table])


def _memory(network: Network) -> float | None:
    """The most memory of the device that any of the network's trainings took, in GiB."""
    epochs = [epoch for result in network.results for epoch in result["curve"]]
    taken = [epoch["device_memory"] for epoch in epochs if "device_memory" in epoch]
    return max(taken) / 2**30 if taken else None


def _device(network: Network) -> str:
    last = network.results[-1]
    devices = last.get("devices") or 1
    return f"{devices} × {last['device']}" if devices > 1 else str(last["device"])


def duration(seconds: float) -> str:
    """A time in words: "42 s", "17 min", "1.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def best_in_detail(network: Network) -> Section | None:
    """The section with one network's classes, confusions and calibration; None without an
    evaluation."""
    if not network.evaluations:
        return None
    evaluation = network.evaluations[0]
    test = evaluation["test"]
    classes = test["per_class"]
    names = readable_classes([str(row["class"]) for row in classes])
    classes = [{**row, "class": name} for row, name in zip(classes, names, strict=True)]
    known = [row for row in classes if row["accuracy"] is not None]
    text = (
        f"{network.label} has the highest mean accuracy. Here is its training with seed "
        f"{evaluation['seed']}: {number(test['top1']['value'], 2)} % of {test['images']:,} "
        "test images."
    )
    confusions: Table | Matrix
    if len(classes) <= MATRIX_CLASSES:
        table = _class_table(known, "Accuracy by class, with 95 % Wilson intervals")
        caption = "Confusions: rows are true classes, columns what they were taken for"
        confusions = Matrix(names, test["confusion"], caption)
    else:
        worst = sorted(known, key=lambda row: float(row["accuracy"]))[:SHOWN]
        caption = f"The {len(worst)} classes with the lowest accuracy of {len(classes):,}"
        table = _class_table(worst, f"{caption}, with 95 % intervals")
        confusions = _confusion_table(names, test["confusion"])
    elements: list[Element] = [Text(text), SideBySide([table, confusions])]
    if test.get("calibration"):
        elements.append(_calibration(test))
    return Section("The best network in detail", elements)


def _calibration(test: Record) -> Pictures:
    caption = (
        f"Calibration: expected error {test['ece']:.2f} %, negative log likelihood "
        f"{test['nll']:.3f}. The line is perfect; bars above it are too modest, bars below too "
        "sure, pale ones of fewer than 10 images; underneath, how many images have each of "
        "these confidences."
    )
    figure = reliability(test["calibration"])
    return Pictures([plot(figure, "calibration", "Accuracy against confidence", caption)])


def _class_table(classes: Sequence[Record], caption: str) -> Table:
    return table_of(
        classes,
        [
            (Column("class", "text"), lambda row: str(row["class"])),
            (Column("images"), lambda row: f"{row['images']:,}"),
            (Column("accuracy", unit="%"), lambda row: number(row["accuracy"], 1)),
            (Column("95 % interval", unit="%"), lambda row: _interval(row["low"], row["high"], 1)),
        ],
        caption,
    )


def _confusion_table(names: Sequence[str], confusion: Sequence[Sequence[int]]) -> Table:
    pairs = [
        (-count, true, guess)
        for true, counts in enumerate(confusion)
        for guess, count in enumerate(counts)
        if true != guess and count
    ]
    rows = [
        [names[true], names[guess], f"{-count:,}", number(-100 * count / sum(confusion[true]), 1)]
        for count, true, guess in sorted(pairs)[:SHOWN]
    ]
    columns = [
        Column("class", "text"),
        Column("taken for", "text"),
        Column("images"),
        Column("of the class", unit="%"),
    ]
    return Table(columns, rows, "The most frequent confusions")


def speed(networks: Sequence[Network]) -> Section | None:
    """The section with latency and throughput; None when nothing was measured."""
    items = [(network.label, row) for network in networks for row in network.speed]
    if not items:
        return None
    devices = {_measured_on(row) for _, row in items}
    table = table_of(
        items,
        [
            (Column("network", "text"), lambda item: item[0]),
            (Column("batch"), lambda item: f"{item[1]['batch']:,}"),
            (Column("median", unit="ms"), lambda item: _milliseconds(item[1])),
            (
                Column("5th to 95th percentile", unit="ms"),
                lambda item: _interval(item[1].get("low"), item[1].get("high")),
            ),
            (Column("images a second"), lambda item: number(item[1].get("images_per_second"), 0)),
            (
                Column("device", "text") if len(devices) > 1 else None,
                lambda item: _measured_on(item[1]),
            ),
        ],
    )
    text = (
        "Forward passes of images that lie on the device already, channels last, after a warm-up."
    )
    if len(devices) == 1:
        text += f" Measured on {devices.pop()}."
    doubted = list(dict.fromkeys(label for label, row in items if _is_doubtful(row)))
    doubts = [Text(_DOUBT.format(networks=", ".join(doubted)))] if doubted else []
    return Section("Speed", [*doubts, Text(text, quiet=True), table])


_DOUBT = (
    "Do not trust these times yet: other processes were at work, or passes took very different "
    "times, while these networks were measured: {networks}. To measure them anew on a quiet "
    "machine, run blockqnn evaluate with another number of repeats (--set evaluation.repeats=30)."
)


def _is_doubtful(row: Record) -> bool:
    """Whether a measured time may be that of a machine that had other work."""
    spread_out = _measured(row) and row.get("high", 0.0) > WIDE * row["milliseconds"]
    return bool(row.get("busy") or spread_out)


def _measured(row: Record) -> bool:
    return row.get("milliseconds") is not None


def _measured_on(row: Record) -> str:
    threads = row.get("threads")
    words = f", {threads} {'thread' if threads == 1 else 'threads'}" if threads else ""
    return f"{row['device']}{words}, {row['precision']}"


def _milliseconds(row: Record) -> str:
    measured = row.get("milliseconds")
    return str(row.get("reason", "–")) if measured is None else number(measured, 2)


def published(networks: Sequence[Network]) -> Section | None:
    """The section with what others have printed about the same data set; None where nobody has."""
    data = networks[0].results[-1]["data"]
    found = sorted(
        published_on(str(data.get("name")), len(data["classes"])), key=lambda row: row.error
    )
    if not found:
        return None
    top5 = any(row.top5_error is not None for row in found)
    sizes = any(row.parameters is not None for row in found)
    table = table_of(
        found,
        [
            (Column("network", "text"), lambda row: row.network),
            (Column("error", unit="%"), lambda row: spread(row.error, row.error_std)),
            (Column("accuracy", unit="%"), lambda row: number(100 - row.error, 2)),
            (
                Column("top-5 error", unit="%") if top5 else None,
                lambda row: number(row.top5_error, 2),
            ),
            (Column("depth"), lambda row: str(row.depth or "–")),
            (
                Column("parameters") if sizes else None,
                lambda row: "–" if row.parameters is None else plain_count(row.parameters),
            ),
            (
                None if top5 else Column("search", unit="GPU-days"),
                lambda row: "–" if row.gpu_days is None else f"{row.gpu_days:,g}",
            ),
            (
                Column("read in", "text"),
                lambda row: "; ".join(filter(None, [f"{row.source}, {row.place}", row.note])),
            ),
        ],
        marked=[i for i, row in enumerate(found) if row.ours],
    )
    text = (
        "Published, not measured here: test errors as printed by others, by other recipes on other "
        "machines. Marked are those of the BlockQNN papers."
    )
    return Section("Published numbers", [Text(text), table])
