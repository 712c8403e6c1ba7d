"""The report as a reader, a browser and a spreadsheet see it."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from matplotlib.image import imread
from tiny_run import CLASSES, S, evaluation, result, whole_run, write
from tiny_search import finish, supplied, tiny_settings

from blockqnn.errors import SearchError
from blockqnn.search.history import read_search
from evaluation.plots.trainings import accuracy_against_cost, held_out_curves, training_curves
from evaluation.report import results_sections, write_report
from evaluation.report.origin_sections import selection_section
from evaluation.report.search_summary import read_searched, searched
from evaluation.results import compare, read_run, run_of
from evaluation.stages.search import write_search
from flows.cli import main

VOID = {"meta", "wbr", "br", "link", "img"}


class Page(HTMLParser):
    """What is in a page: tags balanced, texts, attributes, tables by section."""

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.sections, self.rows = {}, []
        self._titled = False
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open in ([], ["html"])

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)
        self._titled = tag == "h2"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self._titled and data.strip():
            self.sections[data] = len(self.texts)
            self._titled = False
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    directory = tmp_path_factory.mktemp("search") / "night"
    finish(directory, tiny_settings())
    return directory


@pytest.fixture(scope="module")
def written(tmp_path_factory, search):
    base = tmp_path_factory.mktemp("report")
    run = whole_run(base / "train-pets")
    path = write_report(run, base / "out", search=search, command="blockqnn report --data pets")
    return path


@pytest.fixture(scope="module")
def page(written):
    return Page(written)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_part_is_there_in_the_order_of_reading(page):
    assert list(page.sections) == [
        "Results",
        "Search",
        "Selection",
        "Blocks",
        "Training",
        "The best network in detail",
        "Speed",
        "Cost",
        "How it was made",
    ]
    assert {"h1", "nav", "figure", "table"} <= set(page.tags)


def test_the_page_needs_nothing_else(written, page):
    assert written.name == "report.html"
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("#", "data:")), (tag, name, value)
        assert not name.startswith("on")
    text = written.read_text(encoding="utf-8")
    assert "@import" not in text and "url(http" not in text


def test_ids_are_unique_and_every_reference_has_one(page):
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = [v[1:] for _, n, v in page.attributes if n in ("href", "xlink:href") and v[0] == "#"]
    assert set(wanted) <= set(ids)


def test_the_result_table_by_hand(page):
    heads = next(row for row in page.rows if row[0] == "network")
    rows = {
        row[0]: dict(zip(heads, row, strict=True)) for row in page.rows if len(row) == len(heads)
    }
    accuracy = next(head for head in heads if head.startswith("test accuracy"))
    # 70 and 75: mean 72.5, sample deviation 5 / sqrt(2)
    assert rows["winner"][accuracy] == "72.50 ± 3.54"
    assert rows["resnet18"][accuracy] == "60.00 ± 0.00"
    assert (rows["winner"]["MACs"], rows["winner"]["parameters"]) == ("2 M", "1.5 k")
    assert "12.50 points above the best of the networks it is compared with" in page.text
    assert "12 times" not in page.text and "0.22 times its multiply-accumulates" in page.text


def test_cost_adds_up(page, search):
    outcomes = [r.outcome.seconds for r in read_search(search).results if r.same_as is None]
    hours = sum(outcomes) / 3600
    cost = {row[0]: row[-1] for row in page.rows if len(row) == 3}
    assert cost["search night"] == f"{hours:,.2f}"
    assert cost["selection"] == "0.30"  # 6 and 12 minutes
    assert cost["winner"] == "1.00"
    assert cost["all of it"] == f"{hours + 0.3 + 3.0:,.2f}"


def test_where_it_comes_from(page):
    for fact in ("blockqnn report --data pets", "abc123", "f1f2", "torch 2.14.1", "a small GPU"):
        assert fact in page.text
    assert "ranked on 300 images held out" in page.text
    assert "trained on all 1,200 training images" in page.text
    assert "candidate 11 of the search" in page.text


def test_markdown_has_the_same_and_its_pictures(written):
    text = written.with_name("report.md").read_text(encoding="utf-8")
    assert "| **winner** | 72.50 ± 3.54 |" in text
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")][0] == "Results"
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert {"report/search.png", "report/pareto.png", "report/block_1.png"} <= set(pictures)
    assert "report/search_front.png" in pictures
    for picture in pictures:
        assert imread(written.parent / picture).shape[0] > 100
    widths = {line.count("|") for line in text.split("\n\n")[6].splitlines()}
    assert len(widths) == 1


def test_numbers_for_other_programs(written):
    out = written.parent
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["winner"] == {"accuracy": 72.5, "std": 3.536, "seeds": 2}
    first = rows_of(out / "results.csv")[0]
    assert (first["network"], first["accuracy"], first["held_out"]) == ("winner", "72.5", "70.0")
    assert (first["code"], first["device_hours"]) == (S, "1.0")
    curves = rows_of(out / "training_curves.csv")
    assert len(curves) == 8 * 2
    assert list(curves[0])[:7] == [
        "label",
        "seed",
        "epoch",
        "loss",
        "train_accuracy",
        "accuracy",
        "learning_rate",
    ]
    front = {row["label"]: row["front"] for row in rows_of(out / "pareto.csv")}
    assert front == {"winner": "1", "residual": "1", "resnet18": "0"}
    assert [row["class"] for row in rows_of(out / "per_class.csv")] == CLASSES


def test_the_same_files_give_the_same_report(written, search):
    again = written.parent.parent / "again"
    run = written.parent.parent / "train-pets"
    command = "blockqnn report --data pets"
    path = write_report(run, again, search=search, command=command)
    for name in ("report.html", "report.md", "results.csv"):
        assert (again / name).read_bytes() == (written.parent / name).read_bytes()
    assert path == again / "report.html"


def test_a_run_that_has_just_begun(tmp_path):
    write(tmp_path / "run", result("S", block=S))
    page = Page(write_report(tmp_path / "run", tmp_path / "out"))
    assert list(page.sections) == ["Results", "Blocks", "Training", "Cost", "How it was made"]
    assert "None of these networks has met the test set yet" in page.text
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == {}
    assert rows_of(tmp_path / "out" / "pareto.csv") == []


def test_one_seed_says_so(tmp_path):
    content = result("resnet18")
    run = run_of("run", [content], [evaluation(content)])
    page = Page(write_report(run, tmp_path, title="Pets & friends"))
    assert "how it varies with the seed is not known" in page.text
    assert "Pets & friends" in page.text and "±" not in page.text


def test_what_went_wrong_is_said(tmp_path):
    good = result("S", block=S)
    other = result("resnet18", recipe={"epochs": 5})
    lost = result("S", 1, block=S, outcome="diverged", reason="the loss was not finite", curve=[])
    page = Page(
        write_report(run_of("run", [good, other, lost], map(evaluation, [good, other])), tmp_path)
    )
    assert "S with seed 1 diverged (the loss was not finite)." in page.text
    assert "not all trained by the same recipe" in page.text


def test_a_selection_of_which_only_the_ranking_is_kept_has_its_cost(tmp_path):
    ranking = [
        {"label": "block-1", "block": S, "accuracy": 80.0, "parameters": 1, "macs": 2},
        {"label": "block-2", "block": "x", "accuracy": None, "parameters": 1, "macs": 2},
    ]
    ranking = [{**row, "seconds": 1800.0, "devices": 2} for row in ranking]
    selection = {"search": "night", "ranking": ranking, "winner": {"block": S}}
    results = [result("winner", block=S), result("winner", 1, block=S, outcome="diverged")]
    page = Page(write_report(run_of("run", results, [], selection), tmp_path))
    assert ["selection", "2", "2.00"] in page.rows
    assert ["diverged", "1", "0.50"] in page.rows
    assert ["all of it", "4", "3.00"] in page.rows


HERE = "Zhong et al., CVPR 2018, Table 3"
HOSTILE = '<script>alert("1")</script>|`*_'


def test_names_from_outside_stay_text(tmp_path):
    classes = [HOSTILE, "--><b>", "{{x}}"]
    content = result(HOSTILE, block=S)
    content["data"]["classes"] = classes
    run = run_of("run", [content], [evaluation(content, classes=classes)])
    path = write_report(run, tmp_path, title=HOSTILE, command=HOSTILE)
    page = Page(path)
    assert "script" not in page.tags and "b" not in page.tags
    assert HOSTILE in page.text
    text = (tmp_path / "report.md").read_text()
    assert "<script>" not in re.sub(r"\\.", "", text).replace("`", "")
    row = next(line for line in text.splitlines() if line.startswith("| **"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 9


def test_many_classes_are_not_all_listed(tmp_path):
    classes = [f"kind {i}" for i in range(40)]
    content = result("resnet18")
    content["data"]["classes"] = classes
    judged = evaluation(content, hits=[60 + i % 40 for i in range(40)], classes=classes)
    page = Page(write_report(run_of("run", [content], [judged]), tmp_path))
    assert "The 10 classes with the lowest accuracy of 40" in page.text
    assert ["kind 0", "kind 1", "40", "40.0"] in page.rows
    assert len(rows_of(tmp_path / "per_class.csv")) == 40


@pytest.mark.parametrize(("name", "shown"), [("cifar10", True), ("imagenet", False)])
def test_published_numbers_stand_apart(name, shown):
    content = result("S", block=S)
    content["data"] |= {"name": name, "classes": [f"kind {i}" for i in range(10)]}
    section = results_sections.published(compare(run_of("run", [content], [])))
    if not shown:
        assert section is None
        return
    text, table = section.elements
    assert "Published, not measured here" in text.text
    row = next(row for row in table.rows if row[0] == "Block-QNN-S, N=2")
    assert (row[1], row[2], row[4], row[6]) == ("4.38", "95.62", "6.1 M", HERE)


def test_what_is_kept_of_a_search_is_enough(tmp_path, search):
    write_search(read_search(search), "night", tmp_path / "kept")
    write(tmp_path / "run", result("S", block=S), hits=(80, 70, 60))
    page = Page(write_report(tmp_path / "run", tmp_path / "out", search=tmp_path / "kept"))
    trained = sum(r.same_as is None for r in read_search(search).results if r.outcome.accuracy)
    assert f"over 5 iterations, {trained} distinct blocks trained." in page.text
    assert "The blocks on the fronts" in page.text
    assert "Search" in page.sections


def test_a_selection_by_several_seeds_has_their_mean_and_one_curve_a_block(tmp_path):
    run = whole_run(tmp_path / "train-pets")
    selection = json.loads((run / "selection.json").read_text())
    for row, accuracies in zip(selection["ranking"], ([78.0, 80.0], [70.0, 86.0]), strict=True):
        row |= {"accuracies": accuracies, "accuracy": sum(accuracies) / 2}
        write(run, result(row["label"], 1, split="train", block=row["block"], seconds=1.0))
    (run / "selection.json").write_text(json.dumps(selection))
    page = Page(write_report(run, tmp_path / "out"))
    assert "Each was trained with 2 seeds: the mean ranks, ± is their deviation." in page.text
    cells = [row[3] for row in page.rows if len(row) == 6 and row[1] in ("block-1", "block-2")]
    assert cells == ["79.00 ± 1.41", "78.00 ± 11.31"]


SEEDS = ((50.0, 70.0), (70.0, 80.0))
"""Held-out accuracies of two trainings after two epochs."""


def test_the_curve_of_a_block_in_the_selection_is_the_mean_of_its_seeds():
    curves = [[{"epoch": 1, "accuracy": a}, {"epoch": 2, "accuracy": b}] for a, b in SEEDS]
    (axes,) = held_out_curves([("block-1", curves), ("block-2", curves[:1])]).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert drawn == {"block-1": [60.0, 75.0], "block-2": [50.0, 70.0]}


def colours_in(figure):
    """The colour of each network by its name in a legend or on a line."""
    return {
        name: handle.get_color() if hasattr(handle, "get_color") else handle[0].get_color()
        for axes in figure.axes
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }


def test_a_network_has_one_colour_in_all_plots(tmp_path):
    run = read_run(whole_run(tmp_path / "train-pets"))
    networks = compare(run)
    assert [network.label for network in networks] == ["winner", "residual", "resnet18"]
    curves, costs = training_curves(networks), accuracy_against_cost(networks, networks[:1])
    assert colours_in(curves).keys() == {"winner", "resnet18", "residual"}
    assert len(set(colours_in(curves).values())) == 3
    assert colours_in(costs).items() >= colours_in(curves).items()
    # the winner of the selection is the final network, the other contender is none of them
    svg = selection_section(run, networks).elements[-1].pictures[0].svg
    assert "stroke: var(--blue," in svg
    assert "stroke: var(--orange," not in svg and "stroke: var(--green," not in svg


def test_wide_pictures_have_a_version_for_phones(written):
    text = written.read_text(encoding="utf-8")
    wide = re.findall(r'<figure class="wide">(.*?)<figcaption', text, re.DOTALL)
    assert len(wide) >= 4
    for figure in wide:
        large, small = (
            float(width) for width in re.findall(r'<svg[^>]*? width="([\d.]+)pt"', figure)
        )
        assert small < 300 < 600 < large  # points: 72 of them are 96 pixels
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_times_of_a_busy_machine_are_doubted(tmp_path):
    run = tmp_path / "train-pets"
    write(run, result("winner", block=S), hits=(80, 70, 60))
    page = Page(write_report(run, tmp_path / "out"))
    assert "Do not trust these times" in page.text  # 4 ms for the slowest, 2 ms for the median
    for each in (run / "evaluations").glob("*.json"):
        evaluation = json.loads(each.read_text())
        evaluation["speed"][0] |= {"low": 1.9, "high": 2.2}
        each.write_text(json.dumps(evaluation))
    page = Page(write_report(run, tmp_path / "out"))
    assert "Do not trust these times" not in page.text
    evaluation["speed"][0] |= {"busy": True}
    each.write_text(json.dumps(evaluation))
    page = Page(write_report(run, tmp_path / "out"))
    assert "while these networks were measured: winner." in page.text


def test_what_was_chosen_of_a_networks_shape_is_said(tmp_path):
    run = whole_run(tmp_path / "train-pets")
    selection = json.loads((run / "selection.json").read_text())
    selection["ranking"][0]["shape"] = "half:1-2-1:none"
    (run / "selection.json").write_text(json.dumps(selection))
    page = Page(write_report(run, tmp_path / "out"))
    assert ["1", "block-1", "11", "79.00", "1.5 k", "2 M", "half:1-2-1:none"] in page.rows


def test_the_command_shows_the_search_of_the_selection(tmp_path):
    latency = {"source": "measured"}
    settings = tiny_settings(reward={"parameters": 1.5}, budget={"latency": 1e4}, latency=latency)
    finish(tmp_path / "night", settings, lambda c: replace(supplied(c), latency=2.0))
    whole_run(tmp_path / "train-pets")
    command = ["report", "--data", "pets", "--runs", str(tmp_path), "--to", str(tmp_path / "out")]
    assert main(command) == 0
    page = Page(tmp_path / "out" / "report.html")
    assert "The blocks on the fronts" in page.text
    assert "1.5 for each doubling of parameters" in page.text
    assert "beyond the budget were not trained: 10,000 ms" in page.text
    assert "the median of 20 passes of 1 image" in page.text
    (tmp_path / "night" / "journal.jsonl").unlink()  # it may be gone by then
    assert main(command) == 0
    assert "Search" not in Page(tmp_path / "out" / "report.html").sections


def test_costs_count_what_was_stopped(tmp_path):
    def stopped(candidate):
        ended = {"kind": "stopped", "accuracy": None, "predicted": 20.0}
        outcome = replace(supplied(candidate), seconds=3600.0)
        return replace(outcome, **ended) if outcome.kind == "trained" else outcome

    finish(tmp_path / "night", tiny_settings(), stopped)
    history = read_search(tmp_path / "night")
    write_search(history, "night", tmp_path / "kept")
    begun = [r for r in history.results if r.same_as is None and r.outcome.kind != "infeasible"]
    for found in (searched(history, "night"), read_searched(tmp_path / "kept")):
        assert found.trainings == len(begun) > 10
        assert found.hours >= len(begun)


def test_an_absent_search_or_run_is_one_sentence(tmp_path):
    write(tmp_path / "run", result("S", block=S))
    with pytest.raises(SearchError, match="there is no search in .*: name one with --search"):
        write_report(tmp_path / "run", tmp_path / "out", search=tmp_path / "absent")
    with pytest.raises(SearchError, match="there are no final trainings in"):
        write_report(tmp_path / "absent", tmp_path / "out")
    lost = result("S", block=S, outcome="diverged", curve=[])
    with pytest.raises(SearchError, match="no network of lost has been finally trained"):
        write_report(run_of("lost", [lost], []), tmp_path / "out")


def test_the_space_of_a_search_is_said(tmp_path):
    finish(tmp_path, tiny_settings())
    (paper, *_) = searched(read_search(tmp_path), "tiny").sentences
    assert paper.startswith("Q-learning over blocks of up to 4 layers on digits: 30 candidates")
    space = {"version": "v2", "max_index": 5, "max_width": 2}
    finish(tmp_path / "v2", tiny_settings(space=space))
    (tighter, *_) = searched(read_search(tmp_path / "v2"), "tiny").sentences
    assert "blocks of up to 5 layers and 2 leaves of space V2 on digits" in tighter
