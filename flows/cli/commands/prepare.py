"""`blockqnn data` and `blockqnn plan`: what final trainings will read, written down beforehand."""

import argparse
from typing import Any

from blockqnn.storage import as_json, write_json
from flows.cli import shared
from flows.cli.parser import add_command


def add(commands: Any) -> None:
    data = add_command(
        commands,
        "data",
        "write a data set into one frozen file",
        "blockqnn data --data cifar10 --to cifar10.npz",
    )
    shared.add_plan(data)
    shared.add_path(data, "--to", "FILE", "to read with data.name=prepared", required=True)
    data.set_defaults(run=run_data)

    plan = add_command(
        commands,
        "plan",
        "show the settings of final trainings, resolved, as JSON",
        "blockqnn plan --data cifar10 --set recipe.epochs=30",
    )
    shared.add_plan(plan)
    shared.add_path(plan, "--to", "FILE", "instead of the terminal")
    plan.set_defaults(run=run_plan)


def run_data(options: argparse.Namespace) -> None:
    """Write the plan's images into one file."""
    from blockqnn.data.prepare import prepare

    prepare(shared.load_plan(options).data, options.to)


def run_plan(options: argparse.Namespace) -> None:
    """Print the plan, or write it into a file."""
    plan = shared.load_plan(options).to_dict()
    if options.to is None:
        print(as_json(plan), end="")
        return
    with shared.writing(options.to):
        options.to.parent.mkdir(parents=True, exist_ok=True)
        write_json(plan, options.to)
