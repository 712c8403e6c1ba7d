"""`blockqnn importance`: what of a network goes with its accuracy in a search."""

import argparse
from dataclasses import asdict
from typing import Any

from blockqnn.errors import SettingsError
from blockqnn.search.history import read_search
from blockqnn.storage import as_json
from flows.cli import shared
from flows.cli.parser import add_command
from flows.runs import search_directory


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "importance",
        "say what of a network goes with its accuracy: kinds of layers, depth, width, shape",
        "blockqnn importance own --to importance.png",
    )
    shared.add_search_name(parser)
    shared.add_path(parser, "--to", "FILE", "a picture of it, .svg or .png")
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print a line a property, and draw them where asked."""
    from evaluation.candidates.importance import importances
    from evaluation.plots.importance import draw_importances
    from flows.terminal.say import print_table

    if options.to is not None and options.to.suffix not in (".png", ".svg"):
        raise SettingsError(f"--to is {options.to}: give a name that ends in .png or .svg")
    found = importances(read_search(search_directory(options.runs, options.name)))
    if options.json:
        print(as_json(asdict(found)), end="")
    else:
        print(
            f"Of {found.candidates} trained candidates, properties of their networks explain "
            f"{100 * max(0.0, found.explained):.0f} % of the variance of accuracy."
        )
        rows = [
            {
                "property": each.name,
                "worth (% accuracy)": each.points,
                "spread": each.spread,
                "more of it": "better" if each.rises else "worse",
            }
            for each in found.of
        ]
        print_table(rows, left=("property",))
    if options.to is not None:
        with shared.writing(options.to):
            draw_importances(found).savefig(options.to, dpi=140)
