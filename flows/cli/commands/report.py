"""`blockqnn report`: one page about final trainings and their search."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from blockqnn.search.history import JOURNAL
from evaluation.stages.evaluated import read_judged
from evaluation.stages.selection import read_selection
from flows.cli import shared
from flows.cli.parser import add_command
from flows.runs import run_directory, search_directory


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "report",
        "write one page about final trainings and their search",
        "blockqnn report --search own --to report",
        "blockqnn report --data cifar10 --search mine",
    )
    parser.add_argument(
        "--data", metavar="LABEL", help="the plan that was trained (that of --search, or digits)"
    )
    shared.add_run_name(parser)
    text = "a search, or a directory it wrote --to; the selection's where it is in the runs"
    parser.add_argument("--search", metavar="NAME", help=text)
    shared.add_path(parser, "--winner", "FILE", "a selection.json that is not the run's own")
    text = "report what blockqnn evaluate --to wrote there, instead of a run"
    shared.add_path(parser, "--from", "DIR", text, dest="evaluated")
    shared.add_path(parser, "--to", "DIR", "for report.html and the rest (the run's report/)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the report and print where it is."""
    from evaluation.report import write_report
    from evaluation.results import read_run, run_of

    command = "blockqnn {0} --data " + (options.data or "digits")
    if options.search is not None and options.data is None and options.name is None:
        trained = f"train-{options.search}"
        if (options.runs / trained).is_dir():
            options.name, command = trained, f"blockqnn {{0}} --search {options.search}"
    _, directory = run_directory(options.runs, options.name, options.data or "digits")
    selection = read_selection(options.winner) if options.winner is not None else None
    if options.evaluated is not None:
        found = run_of(*read_judged(options.evaluated), selection)
        command = "dvc repro"
    else:
        found = read_run(directory)
        found = found if selection is None else replace(found, selection=selection)
        command = " && ".join(command.format(step) for step in ("train", "evaluate"))
    search = None
    if options.search is not None:
        written = Path(options.search)
        is_written = (written / "best.json").exists()
        search = written if is_written else search_directory(options.runs, options.search)
    elif name := (found.selection or {}).get("search"):
        own = search_directory(options.runs, str(name))
        search = own if (own / JOURNAL).exists() else None
    to = options.to if options.to is not None else directory / "report"
    with shared.writing(to):
        print(write_report(found, to, search=search, command=command))
