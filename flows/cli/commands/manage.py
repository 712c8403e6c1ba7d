"""`blockqnn list`, `rename` and `delete`: the runs that there are."""

import argparse
import sys
import time
from dataclasses import asdict
from typing import Any

from blockqnn.errors import SettingsError
from blockqnn.storage import as_json
from flows.cli import shared
from flows.cli.parser import add_command


def add(commands: Any) -> None:
    parser = add_command(commands, "list", "list all searches and final trainings", "blockqnn list")
    shared.add_runs(parser)
    shared.add_json(parser)
    parser.set_defaults(run=run_list)

    sentence = "give a search or final trainings another name, in MLflow too"
    parser = add_command(commands, "rename", sentence, "blockqnn rename own pets")
    parser.add_argument("old", metavar="NAME", help="the run's name")
    parser.add_argument("new", metavar="NEW", help="its new name")
    shared.add_runs(parser)
    parser.set_defaults(run=run_rename)

    sentence = "delete searches or final trainings with their records in MLflow"
    parser = add_command(commands, "delete", sentence, "blockqnn delete own train-own")
    parser.add_argument("names", nargs="+", metavar="NAME", help="names of runs")
    parser.add_argument("--yes", action="store_true", help="without asking")
    shared.add_runs(parser)
    parser.set_defaults(run=run_delete)


def run_list(options: argparse.Namespace) -> None:
    """Print a line a run."""
    from flows.cli.kept_runs import kept_runs

    found = list(kept_runs(options.runs))
    if options.json:
        print(as_json([asdict(run) for run in found]), end="")
        return
    if not found:
        print(f"There are no runs in {options.runs}: blockqnn search makes one.")
        return
    from flows.terminal.say import print_table

    rows = [
        {
            "name": run.name,
            "kind": run.kind,
            "state": run.state,
            "done": f"{run.done} of {run.total}",
            "best accuracy": run.best,
            "MB": round(run.megabytes, 1),
            "changed": time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed)),
        }
        for run in found
    ]
    print_table(rows, left=("name", "kind", "state"))


def run_rename(options: argparse.Namespace) -> None:
    """Rename a run."""
    from flows.cli.kept_runs import rename

    rename(options.runs, options.old, options.new)
    print(f"{options.old} is called {options.new}")


def run_delete(options: argparse.Namespace) -> None:
    """Delete runs, after a question."""
    from flows.cli.kept_runs import delete, kept_runs

    known = {run.name: run for run in kept_runs(options.runs)}
    for name in options.names:
        if name in known and not options.yes:
            run = known[name]
            if not sys.stdin.isatty():
                raise SettingsError(f"{name} is not deleted without a question: give --yes")
            what = f"{run.kind} {name}, {run.done} of {run.total} done, {run.megabytes:.1f} MB"
            if input(f"Delete {what}? (y/N) ").strip().lower() not in ("y", "yes"):
                continue
        delete(options.runs, name)
        print(f"{name} is deleted")
