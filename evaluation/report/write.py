"""The report of a run's final trainings: one HTML page, the same as Markdown, and its numbers as
small files.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from blockqnn.errors import SearchError
from blockqnn.storage import write_atomically, write_json, write_rows
from evaluation.plots.style import plain_count
from evaluation.report import origin_sections, results_sections
from evaluation.report.document import Document, Element, KeyNumbers, Pictures, Section, SideBySide
from evaluation.report.html import page
from evaluation.report.markdown import markdown
from evaluation.report.picture import Picture
from evaluation.report.search_summary import Searched, read_searched
from evaluation.results import Network, Run, compare, device_hours, pareto, read_run

VALUES = ("epoch", "loss", "train_accuracy", "accuracy", "learning_rate")
"""Columns of training_curves.csv that an epoch of a result's curve has."""
CURVE = ("label", "seed", *VALUES, "split")
"""Columns of training_curves.csv."""
PARETO = ("label", "macs", "parameters", "accuracy", "std", "front")
"""Columns of pareto.csv."""
CLASS = ("class", "images", "accuracy", "low", "high")
"""Columns of per_class.csv."""


def write_report(
    run: Path | Run,
    to: Path,
    *,
    search: Path | None = None,
    title: str = "",
    command: str = "",
    trainings: Collection[str] | None = None,
) -> Path:
    """Write report.html and report.md (its pictures in report/) into `to`; returns the page's path.

    Beside them: results.csv (a row for each network), metrics.json (accuracy and std by network),
    training_curves.csv, pareto.csv and per_class.csv (of the best network). `run` is the directory
    of a run, of which `trainings` may name the ones to report on, or one that is read already;
    `search` the directory of a search, or of what `blockqnn search --to` wrote; `command` the
    command that made the results. The report leaves out what is not there yet. Raises `SearchError`
    when no training has finished or the search is not there, and OSError when the files cannot be
    written.
    """
    if isinstance(run, Path):
        run = read_run(run, trainings)
    networks = compare(run)
    if not networks:
        raise SearchError(
            f"no network of {run.name} has been finally trained: go on with blockqnn train"
        )
    searched = read_searched(search) if search is not None else None
    document = _document(run, networks, searched, title, command)
    to.mkdir(parents=True, exist_ok=True)
    _write_pictures(document.sections, to / "report")
    _write_numbers(run, networks, to)
    _write_text(markdown(document, "report"), to / "report.md")
    _write_text(page(document), to / "report.html")
    return to / "report.html"


def _document(
    run: Run, networks: Sequence[Network], searched: Searched | None, title: str, command: str
) -> Document:
    data = networks[0].results[-1]["data"]
    sections = [
        results_sections.results(networks, pareto(networks), run),
        origin_sections.search_section(searched) if searched is not None else None,
        origin_sections.selection_section(run, networks),
        origin_sections.blocks_section(networks, run.selection),
        results_sections.training(networks),
        results_sections.best_in_detail(networks[0]),
        results_sections.speed(networks),
        results_sections.published(networks),
        origin_sections.cost_section(run, networks, searched),
        origin_sections.provenance(run, networks, searched, command),
    ]
    name = data.get("label") or data.get("name") or run.name
    count = "1 network" if len(networks) == 1 else f"{len(networks)} networks"
    about = f"{count} on {data.get('name')}, {len(data['classes']):,} classes"
    return Document(
        title or f"BlockQNN on {name}",
        about + f", {networks[0].images:,} test images" if networks[0].images else about,
        [_key_numbers(run, networks, searched)],
        [section for section in sections if section is not None],
    )


def _key_numbers(run: Run, networks: Sequence[Network], searched: Searched | None) -> KeyNumbers:
    best = networks[0]
    seeds = len(best.accuracies)
    selecting = origin_sections.selection_results(run)
    hours = device_hours([*selecting, *run.lost, *(r for n in networks for r in n.results)])
    parts = ["selection"] * bool(selecting) + ["final training"]
    if searched is not None:
        hours += searched.hours
        parts.insert(0, "search")
    items = []
    if best.accuracy is not None:
        value = f"{results_sections.spread(best.accuracy, best.std)} %"
        seeds_in_words = f"mean of {seeds} seeds" if seeds > 1 else "one seed"
        items.append((value, f"test accuracy of {best.label}", f"the best here, {seeds_in_words}"))
    items += [
        (plain_count(best.parameters), "parameters", f"of {best.label}"),
        (plain_count(best.macs), "multiply-accumulates", "for one image"),
        (f"{hours:.3g}", "device-hours", ", ".join(parts)),
    ]
    return KeyNumbers(items)


def _write_pictures(sections: Sequence[Section], to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for picture in _pictures_in(section.elements):
            picture.write_png(to / f"{picture.name}.png")


def _pictures_in(elements: Sequence[Element]) -> Iterator[Picture]:
    for element in elements:
        if isinstance(element, Pictures):
            yield from element.pictures
        elif isinstance(element, SideBySide):
            yield from _pictures_in(element.elements)


def _write_numbers(run: Run, networks: Sequence[Network], to: Path) -> None:
    results = [_result_row(network) for network in networks]
    write_rows(list(results[0]), results, to / "results.csv")
    tested = [network for network in networks if network.accuracy is not None]
    front = {id(network) for network in pareto(networks)}
    metrics, points = {}, []
    for network in tested:
        found = {"accuracy": _rounded(network.accuracy), "std": _rounded(network.std)}
        metrics[network.label] = {**found, "seeds": len(network.accuracies)}
        place = {"label": network.label, "macs": network.macs, "parameters": network.parameters}
        points.append({**place, **found, "front": int(id(network) in front)})
    write_json(metrics, to / "metrics.json")
    write_rows(PARETO, points, to / "pareto.csv")
    curves = [
        {
            **{name: result[name] for name in ("label", "seed", "split")},
            **{name: epoch.get(name) for name in VALUES},
        }
        for result in run.results
        for epoch in result["curve"]
    ]
    write_rows(CURVE, curves, to / "training_curves.csv")
    classes = networks[0].evaluations[0]["test"]["per_class"] if networks[0].evaluations else []
    write_rows(CLASS, [{k: row.get(k) for k in CLASS} for row in classes], to / "per_class.csv")


def _result_row(network: Network) -> dict[str, Any]:
    """A row of results.csv; accuracies in percent."""
    low, high = network.interval or (None, None)
    return {
        "network": network.label,
        "seeds": len(network.accuracies),
        "accuracy": _rounded(network.accuracy),
        "std": _rounded(network.std),
        "low": _rounded(low),
        "high": _rounded(high),
        "top5": _rounded(fmean(network.top5)) if network.top5 else None,
        "nll": _rounded(network.nll, 4),
        "ece": _rounded(network.ece),
        "held_out": _rounded(network.held_out),
        "parameters": network.parameters,
        "macs": network.macs,
        "latency_ms": _rounded(network.latency, 4),
        "epochs": network.epochs,
        "images_per_second": _rounded(network.images_per_second, 1),
        "device_hours": _rounded(device_hours(network.results), 5),
        "code": network.block or network.timm,
    }


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def _write_text(text: str, path: Path) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))
