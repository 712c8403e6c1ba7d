"""`blockqnn status`, `best` and `show`: a look at a search, at its best blocks, at one block."""

import argparse
from pathlib import Path
from typing import Any

from blockqnn.storage import as_json
from flows.cli import shared
from flows.cli.parser import add_command
from flows.runs import search_directory


def add(commands: Any) -> None:
    sentence = "say how far a search is, from its journal, also while it runs"
    status = add_command(commands, "status", sentence, "blockqnn status own")
    shared.add_search_name(status)
    status.add_argument("--top", type=int, default=10, metavar="K", help="blocks in the table (10)")
    shared.add_json(status)
    status.set_defaults(run=run_status)

    best = add_command(commands, "best", "print a search's best blocks", "blockqnn best own")
    shared.add_search_name(best)
    best.add_argument("--top", type=int, default=10, metavar="K", help="how many (10)")
    shared.add_json(best)
    best.set_defaults(run=run_best)

    show = add_command(
        commands,
        "show",
        "print a block and its cost, and draw it",
        "blockqnn show S",
        "blockqnn show 17 --name own --to block.svg",
    )
    text = "a name (A, B, S, inception, residual), a code, or a candidate's number"
    show.add_argument("block", help=text)
    shared.add_search_name(show, alone=False)
    shared.add_path(show, "--to", "FILE", "drawing, .svg or .png")
    shared.add_json(show)
    show.set_defaults(run=run_show)


def run_status(options: argparse.Namespace) -> None:
    """Print how far the search is, and its best blocks."""
    from flows.terminal.search_tables import print_status, status_of

    directory = search_directory(options.runs, options.name)
    if (directory / "trainings").is_dir():
        _print_trainings(options, directory)
    elif options.json:
        print(as_json(status_of(directory, options.name, options.top)), end="")
    else:
        print_status(directory, options.name, options.top)
        shared.print_page(options.name, options.runs)


def _print_trainings(options: argparse.Namespace, directory: Path) -> None:
    """Print how far final trainings are."""
    from blockqnn.training.final.result import read_result
    from flows.terminal.training_tables import print_trainings, training_table

    places = sorted(job.parent for job in directory.glob("trainings/*/job.json"))
    results = [result for place in places if (result := read_result(place)) is not None]
    if options.json:
        table = training_table(results)
        found = {"name": options.name, "done": len(results), "total": len(places), "results": table}
        print(as_json(found), end="")
        return
    print(f"{options.name}: {len(results)} of {len(places)} trainings done")
    if results:
        print_trainings(results)


def run_best(options: argparse.Namespace) -> None:
    """Print the best blocks."""
    from flows.terminal.search_tables import print_best, status_of

    directory = search_directory(options.runs, options.name)
    if options.json:
        print(as_json(status_of(directory, options.name, options.top)["best"]), end="")
    else:
        print_best(directory, options.top)


def run_show(options: argparse.Namespace) -> None:
    """Print what is known of the block, and draw it where asked."""
    from flows.terminal.search_tables import print_block

    directory = search_directory(options.runs, options.name)
    print_block(options.block, directory, options.to, as_text=not options.json)
