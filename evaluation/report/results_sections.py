"""The report's sections on what the final networks came to."""

from collections.abc import Iterator, Sequence
from statistics import fmean

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
)
from evaluation.report.picture import plot
from evaluation.results import Network, Record, Run

MATRIX_CLASSES = 20
"""Classes up to which the confusion matrix is shown whole, and every class in a table."""
SHOWN = 10
"""Classes and confusions shown of more."""


def spread(mean: float | None, std: float | None, digits: int = 2) -> str:
    """A mean with its standard deviation, if there is one."""
    if mean is None:
        return "–"
    return f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if std is not None else "")


def number(value: float | None, digits: int) -> str:
    """A number with so many decimals; a dash for none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def results(networks: Sequence[Network], front: Sequence[Network], run: Run) -> Section:
    """The result table, and how sure it is."""
    top5, larger = any(n.top5 for n in networks), any(n.larger for n in networks)
    size = next((n.larger_size for n in networks if n.larger_size), 0)
    batch = next((n.speed[0]["batch"] for n in networks if n.speed), None)
    columns = [
        Column("network", "text"),
        Column("test accuracy", unit="%"),
        Column("95 % interval", unit="%"),
        *([Column("top-5", unit="%")] if top5 else []),
        *([Column(f"at {size} px", unit="%")] if larger else []),
        Column("seeds"),
        Column("ECE", unit="%"),
        Column("parameters"),
        Column("MACs"),
        *([Column("latency", unit=f"ms, batch {batch}")] if batch is not None else []),
    ]
    rows = []
    for network in networks:
        low_high = network.interval
        rows.append(
            [
                network.label,
                spread(network.accuracy, network.std),
                f"{low_high[0]:.2f} to {low_high[1]:.2f}" if low_high else "–",
                *([spread(fmean(network.top5) if network.top5 else None, None)] if top5 else []),
                *([number(fmean(network.larger), 2) if network.larger else "–"] if larger else []),
                str(len(network.accuracies) or len(network.seeds)),
                number(network.ece, 2),
                plain_count(network.parameters),
                plain_count(network.macs),
                *([number(network.latency, 2)] if batch is not None else []),
            ]
        )
    best = frozenset({0}) if networks[0].accuracy is not None else frozenset()
    return Section(
        "Results",
        [
            *(Text(text) for text in _in_words(networks)),
            Table(columns, rows, marked=best),
            Text(" ".join(_how_sure(networks, run)), quiet=True),
            *_cost_picture(networks, front),
        ],
    )


def _in_words(networks: Sequence[Network]) -> Iterator[str]:
    """The best searched network beside the best it is compared with."""
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
    missing = [n.label for n in networks if n.accuracy is None]
    if missing:
        yield f"Not evaluated yet: {', '.join(missing)}."
    partly = [n.label for n in tested if len(n.accuracies) < len(n.seeds)]
    if partly:
        yield f"Not every seed is evaluated yet: {', '.join(partly)}."
    lost = [r for r in run.results if r["outcome"] != "trained" and r["split"] == "everything"]
    for result in lost:
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
            plot(
                accuracy_against_cost(networks, front),
                "pareto",
                "Test accuracy against multiply-accumulates, with the Pareto front",
                f"Accuracy against cost. No other network here is both cheaper and better than "
                f"those on the front: {names}.{bars}",
            )
        ]
    )


def training(networks: Sequence[Network]) -> Section:
    """Curves and throughput of the final trainings."""
    rows = []
    for network in networks:
        last = network.results[-1]
        memory = [
            e["device_memory"] for r in network.results for e in r["curve"] if "device_memory" in e
        ]
        devices = last.get("devices") or 1
        rows.append(
            [
                network.label,
                str(network.epochs),
                duration(network.seconds),
                number(network.images_per_second, 0),
                f"{max(memory) / 2**30:.1f}" if memory else "–",
                f"{devices} × {last['device']}" if devices > 1 else str(last["device"]),
                str(last.get("precision") or "–"),
            ]
        )
    columns = [
        Column("network", "text"),
        Column("epochs"),
        Column("one training"),
        Column("images a second"),
        Column("memory", unit="GiB"),
        Column("device", "text"),
        Column("precision", "text"),
    ]
    if all(row[4] == "–" for row in rows):
        columns, rows = columns[:4] + columns[5:], [row[:4] + row[5:] for row in rows]
    several = any(len(network.seeds) > 1 for network in networks)
    shade = " Lines are means over the seeds, the shade reaches from the lowest to the highest."
    return Section(
        "Training",
        [
            Pictures(
                [
                    plot(
                        training_curves(networks),
                        "training_curves",
                        "Training loss and training accuracy by epoch",
                        "Loss and accuracy on the augmented training images as they are trained on."
                        + (shade if several else ""),
                    )
                ]
            ),
            Table(columns, rows),
        ],
    )


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def best_in_detail(network: Network) -> Section | None:
    """Classes, confusions and calibration of one network; None without an evaluation."""
    if not network.evaluations:
        return None
    evaluation = network.evaluations[0]
    test = evaluation["test"]
    classes = test["per_class"]
    names = [str(row["class"]) for row in classes]
    elements: list[Element] = [
        Text(
            f"{network.label} has the highest mean accuracy. Here is its training with seed "
            f"{evaluation['seed']}: {number(test['top1']['value'], 2)} % of {test['images']:,} "
            "test images."
        )
    ]
    known = [row for row in classes if row["accuracy"] is not None]
    if len(classes) <= MATRIX_CLASSES:
        table = _class_table(known, "Accuracy by class, with 95 % Wilson intervals")
        caption = "Confusions: rows are true classes, columns what they were taken for"
        elements.append(SideBySide([table, Matrix(names, test["confusion"], caption)]))
    else:
        worst = sorted(known, key=lambda row: float(row["accuracy"]))[:SHOWN]
        caption = f"The {len(worst)} classes with the lowest accuracy of {len(classes):,}"
        table = _class_table(worst, f"{caption}, with 95 % intervals")
        elements.append(SideBySide([table, _confusion_table(names, test["confusion"])]))
    if test.get("calibration"):
        caption = (
            f"Calibration: expected error {test['ece']:.2f} %, negative log likelihood "
            f"{test['nll']:.3f}. The line is perfect; bars above it are too modest, bars below too "
            "sure, pale ones of fewer than 10 images; underneath, how many images have each of "
            "these confidences."
        )
        alt = "Accuracy against confidence"
        elements.append(
            Pictures(
                [plot(reliability(test["calibration"]), "calibration", alt, caption, wide=False)]
            )
        )
    return Section("The best network in detail", elements)


def _class_table(classes: Sequence[Record], caption: str) -> Table:
    columns = [
        Column("class", "text"),
        Column("images"),
        Column("accuracy", unit="%"),
        Column("95 % interval", unit="%"),
    ]
    rows = [
        [
            str(row["class"]),
            f"{row['images']:,}",
            number(row["accuracy"], 1),
            f"{row['low']:.1f} to {row['high']:.1f}",
        ]
        for row in classes
    ]
    return Table(columns, rows, caption)


def _confusion_table(names: Sequence[str], confusion: Sequence[Sequence[int]]) -> Table:
    pairs = [
        (count, true, guess)
        for true, counts in enumerate(confusion)
        for guess, count in enumerate(counts)
        if true != guess and count
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    rows = [
        [names[true], names[guess], f"{count:,}", number(100 * count / sum(confusion[true]), 1)]
        for count, true, guess in pairs[:SHOWN]
    ]
    columns = [
        Column("class", "text"),
        Column("taken for", "text"),
        Column("images"),
        Column("of the class", unit="%"),
    ]
    return Table(columns, rows, "The most frequent confusions")


def speed(networks: Sequence[Network]) -> Section | None:
    """Latency and throughput; None when nothing was measured."""
    rows, devices = [], []
    for network in networks:
        for row in network.speed:
            threads = row.get("threads")
            words = f", {threads} {'thread' if threads == 1 else 'threads'}" if threads else ""
            devices.append(f"{row['device']}{words}, {row['precision']}")
            measured = row.get("milliseconds") is not None
            rows.append(
                [
                    network.label,
                    f"{row['batch']:,}",
                    number(row.get("milliseconds"), 2) if measured else row.get("reason", "–"),
                    f"{row['low']:,.2f} to {row['high']:,.2f}" if measured else "–",
                    number(row.get("images_per_second"), 0),
                    devices[-1],
                ]
            )
    if not rows:
        return None
    columns = [
        Column("network", "text"),
        Column("batch"),
        Column("median", unit="ms"),
        Column("5th to 95th percentile", unit="ms"),
        Column("images a second"),
        Column("device", "text"),
    ]
    text = (
        "Forward passes of images that lie on the device already, channels last, after a warm-up."
    )
    if len(set(devices)) == 1:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
        text += f" Measured on {devices[0]}."
    return Section("Speed", [Text(text, quiet=True), Table(columns, rows)])


def published(networks: Sequence[Network]) -> Section | None:
    """What others have printed about the same data set; None where nobody has."""
    data = networks[0].results[-1]["data"]
    found = published_on(str(data.get("name")), len(data["classes"]))
    if not found:
        return None
    found = tuple(sorted(found, key=lambda row: row.error))
    top5 = any(row.top5_error is not None for row in found)
    sizes = any(row.parameters is not None for row in found)
    columns = [
        Column("network", "text"),
        Column("error", unit="%"),
        Column("accuracy", unit="%"),
        *([Column("top-5 error", unit="%")] if top5 else []),
        Column("depth"),
        *([Column("parameters")] if sizes else []),
        *([] if top5 else [Column("search", unit="GPU-days")]),
        Column("read in", "text"),
    ]
    rows = [
        [
            row.network,
            spread(row.error, row.error_std),
            number(100 - row.error, 2),
            *([number(row.top5_error, 2)] if top5 else []),
            "–" if row.depth is None else str(row.depth),
            *([_count(row.parameters)] if sizes else []),
            *([] if top5 else ["–" if row.gpu_days is None else f"{row.gpu_days:,g}"]),
            f"{row.source}, {row.place}" + (f"; {row.note}" if row.note else ""),
        ]
        for row in found
    ]
    marked = frozenset(i for i, row in enumerate(found) if row.ours)
    text = (
        "Published, not measured here: test errors as printed by others, by other recipes on other "
        "machines. Marked are those of the BlockQNN papers."
    )
    return Section("Published numbers", [Text(text), Table(columns, rows, marked=marked)])


def _count(value: int | None) -> str:
    return "–" if value is None else plain_count(value)
