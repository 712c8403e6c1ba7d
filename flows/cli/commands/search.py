"""`blockqnn search`: a search for blocks, to its end."""

import argparse
from pathlib import Path
from typing import Any

from blockqnn.errors import UserError
from blockqnn.params import load_settings
from blockqnn.search.history import read_search
from evaluation.stages.search import write_search
from flows.cli import shared
from flows.cli.parser import add_command
from flows.runs import name_by_settings, search_directory


def add(commands: Any) -> Any:
    parser = add_command(
        commands,
        "search",
        "search for blocks, or go on with a search",
        "blockqnn search",
        "blockqnn search own --profile own-images --set data.root=~/images",
    )
    shared.add_search_name(parser)
    profiles = (
        "laid over the params file: demo (default), own-images, cifar10-laptop, paper, "
        "paper-small, paper-faster, none"
    )
    shared.add_settings(parser, "demo", profiles)
    text = "append to the name a hash of settings and images: others are another search"
    parser.add_argument("--by-settings", action="store_true", help=text)
    text = "write best.json, front.csv, metrics.json, iterations.csv there"
    shared.add_path(parser, "--to", "DIR", text)
    shared.add_wait(parser)
    shared.add_dry_run(parser)
    parser.set_defaults(run=run, command="search")
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the search, print its best blocks, and write the files of a pipeline's stage; returns 1
    if no block was trained to its end.
    """
    if not options.by_settings:  # then the name is not known yet
        shared.print_beginning(options)
    # before a server starts: an error costs no waiting
    settings = load_settings(Path(options.params), options.profile, options.overrides)
    if options.by_settings:
        options.name = name_by_settings(options.name, settings)
    directory = search_directory(options.runs, options.name)
    if options.dry_run:
        from blockqnn.estimate import estimate_search

        shared.print_needs(estimate_search(settings), options)
        return 0
    shared.run_flow("search", options, lambda: _is_finished(directory))
    from flows.terminal.search_tables import print_result

    print_result(directory)
    shared.print_page(options.name, options.runs)
    history = read_search(directory)
    if options.to is not None:
        with shared.writing(options.to):
            write_search(history, options.name, options.to)
    return 0 if history.best(1) else 1


def _is_finished(directory: Path) -> bool:
    try:
        return read_search(directory).finished
    except UserError:
        return False
