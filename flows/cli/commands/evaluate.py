"""`blockqnn evaluate`: final trainings on the test images."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from evaluation.stages.evaluated import write_judged
from flows.cli import shared
from flows.cli.parser import add_command

if TYPE_CHECKING:
    from evaluation.stages.trained import Trained
    from evaluation.test_set import Evaluation


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "evaluate",
        "judge final trainings on the test images",
        "blockqnn evaluate --search own",
        "blockqnn evaluate --data cifar10",
    )
    shared.add_plan(parser)
    shared.add_searched(parser)
    shared.add_run_name(parser)
    shared.add_networks(parser)
    text = "judge what blockqnn train --to wrote below DIR, a directory a network"
    shared.add_path(parser, "--from", "DIR", text, dest="models")
    shared.add_path(parser, "--to", "DIR", "write evaluations.json and metrics.json there")
    shared.add_wait(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Judge the networks, print their table, and write the files of a pipeline's stage."""
    from flows.terminal.training_tables import print_networks

    shared.print_beginning(options)
    planned = shared.planned_trainings(options)

    def found() -> tuple[list[Trained], list[Evaluation]]:
        from flows.evaluate import finals, read_evaluations

        trained = finals(planned, options.networks, options.models)
        return trained, read_evaluations(planned.directory, trained, planned.plan)

    shared.run_flow("evaluate", options, lambda: bool(found()[1]))
    trained, evaluations = found()
    results = [each.result for each in trained]
    print_networks(results, evaluations)
    if options.to is not None:
        with shared.writing(options.to):
            write_judged(options.name, results, evaluations, options.to)
