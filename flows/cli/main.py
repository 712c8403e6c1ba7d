"""The `blockqnn` command: its parser and the table of its commands."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from blockqnn import __version__
from blockqnn.errors import SettingsError, UserError
from flows.cli.commands import (
    compare,
    estimate,
    evaluate,
    export,
    importance,
    manage,
    predict,
    prepare,
    report,
    search,
    serve,
    show,
    train,
)
from flows.cli.parser import Completion, Parser
from flows.cli.shared import fill_in
from flows.servers.prefect_api import quiet

COMMANDS = (
    search,
    estimate,
    show,
    importance,
    manage,
    train,
    evaluate,
    report,
    export,
    predict,
    serve,
    prepare,
    compare,
)
"""The commands' modules, in the order of `blockqnn --help`."""

EPILOG = """\
examples:
  blockqnn search                             the demo: minutes on a laptop, no download
  blockqnn search own --profile own-images --set data.root=~/images
  blockqnn estimate search --profile own-images --set data.root=~/images
  blockqnn status own                         how far it is, also while it runs
  blockqnn train --search own                 rank its best blocks, train the winner and others
  blockqnn evaluate --search own              all that was trained, on the test images
  blockqnn report --search own
  blockqnn list                               all searches and trainings
  blockqnn show A --to block.svg              draw a published block

In directories, files and values of --set, {data} stands for the LABEL of --data, and for
data.name of a search.

What was stopped, killed or lost its machine goes on when the same command is given again.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong usage.

    Raises SystemExit, with status 2, for options that argparse refuses.
    """
    quiet()
    _log_to_terminal()
    parser = Parser(
        prog="blockqnn",
        description="Neural architecture search by Q-learning over convolutional blocks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"blockqnn {__version__}")
    text = "print what makes a shell complete commands and options: bash, zsh or tcsh"
    parser.add_argument("--print-completion", metavar="SHELL", action=Completion, help=text)
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", dest="command"
    )
    for command in COMMANDS:
        command.add(commands)
    options = parser.parse_args(arguments)
    try:
        fill_in(options)
        return options.run(options) or 0  # None is done, too
    except SettingsError as error:
        print(f"blockqnn: {error}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"blockqnn: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # of a reader like head, who has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        kept = "nothing is lost, the same command continues"
        if options.command == "compare":
            kept = "nothing was written, the same command begins anew"
        print(f"\nblockqnn: stopped; {kept}", file=sys.stderr)
        return 1


class _Sentences(logging.Formatter):
    """What our own packages say, without its origin, and warnings of others with it."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        level = record.levelname.lower()
        if record.name.partition(".")[0] not in ("blockqnn", "evaluation", "flows", "root"):
            return f"{level}: {record.name}: {text}"
        return text if record.levelno < logging.WARNING else f"{level}: {text}"


def _log_to_terminal() -> None:
    """Show warnings, and what becomes of the folders and files of images: each sentence once."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Sentences())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    said: set[str] = set()

    def once(record: logging.LogRecord) -> bool:
        if not record.name.startswith("blockqnn.data"):
            return True
        new = (message := record.getMessage()) not in said
        said.add(message)
        return new

    handler.addFilter(once)
    logging.getLogger("blockqnn.data").setLevel(logging.INFO)
