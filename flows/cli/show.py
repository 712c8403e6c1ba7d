"""`blockqnn status` and `blockqnn show`: a look at a search and at a block."""

import argparse
from typing import Any

from flows.cli import shared
from flows.runs import search_directory


def add(commands: Any) -> None:
    status = commands.add_parser("status", help="how far a search is, from its journal")
    shared.add_search_name(status)
    status.add_argument("--top", type=int, default=10, metavar="K", help="blocks in the table")
    status.set_defaults(run=run_status)

    show = commands.add_parser("show", help="print a block and its cost, and draw it")
    text = "a name (A, B, S, inception, residual), a code, or a candidate's number"
    show.add_argument("block", help=text)
    shared.add_search_name(show)
    shared.add_path(show, "--to", "FILE", "drawing, .svg or .png")
    show.set_defaults(run=run_show)


def run_status(options: argparse.Namespace) -> None:
    """Print how far the search is, and its best blocks."""
    from flows.terminal.search_tables import print_status

    print_status(search_directory(options.runs, options.name), options.name, options.top)


def run_show(options: argparse.Namespace) -> None:
    """Print what is known of the block, and draw it where asked."""
    from flows.terminal.search_tables import print_block

    print_block(options.block, search_directory(options.runs, options.name), options.to)
