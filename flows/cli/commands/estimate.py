"""`blockqnn estimate`: what a search or final trainings will take on this machine."""

from typing import Any

from flows.cli.commands import search, train
from flows.cli.parser import add_command


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "estimate",
        "say how long a search or a training will take, how much memory and disk",
        "blockqnn estimate search --profile own-images --set data.root=~/images",
        "blockqnn estimate train --data imagenet --root ~/imagenet",
    )
    kinds = parser.add_subparsers(title="of what", required=True, metavar="search|train", dest="of")
    for command in (search, train):
        # with the options of the command itself, which does the same for --dry-run
        command.add(kinds).set_defaults(dry_run=True)
