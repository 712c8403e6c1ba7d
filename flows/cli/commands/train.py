"""`blockqnn train`: the selection of a winner, and the final trainings."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from blockqnn.storage import as_search_error
from evaluation.stages.trained import write_trained
from flows.cli import shared
from flows.cli.parser import add_command

if TYPE_CHECKING:
    from flows.final_trainings import PlannedTrainings


def add(commands: Any) -> Any:
    parser = add_command(
        commands,
        "train",
        "rank a search's best blocks, then train the winner and others on everything",
        "blockqnn train --search own",
        "blockqnn train --data cifar10 --set search=mine top=5",
    )
    shared.add_plan(parser)
    shared.add_searched(parser)
    shared.add_run_name(parser)
    steps = ["selection", "final", "all"]
    text = "selection: the ranking alone; final: on all training images alone; all (default)"
    parser.add_argument("--step", choices=steps, default="all", help=text)
    shared.add_networks(parser)
    text = "train nothing: write the jobs and print the commands for several machines"
    parser.add_argument("--prepare", action="store_true", help=text)
    text = "of images on disk, read each once first (full, noted under --runs), or one a class"
    parser.add_argument("--check", choices=["full", "quick"], default="full", help=text)
    shared.add_path(parser, "--to", "DIR", "write the selection, or results and weights, there")
    shared.add_wait(parser)
    shared.add_dry_run(parser)
    parser.set_defaults(run=run, command="train")
    return parser


def run(options: argparse.Namespace) -> None:
    """Train, print the table of results, and write the files of a pipeline's stage."""
    from flows.terminal.training_tables import print_trainings

    if not options.prepare:  # which prints commands, and nothing else
        shared.print_beginning(options)
    planned = shared.planned_trainings(options)
    planned.chosen(options.networks)
    if options.dry_run:
        from blockqnn.estimate import estimate_plan

        shared.print_needs(estimate_plan(planned.plan, planned.known_best()), options)
        return
    if options.prepare:
        _prepare(planned, options)
        return
    asked = options.step, options.networks
    shared.run_flow("train", options, lambda: bool(planned.results(*asked)))
    results = planned.results(*asked)
    print_trainings(list(results.values()))
    print(f"All of it: {planned.directory}/trainings/")
    if options.to is not None:
        with shared.writing(options.to):
            write_trained(planned.selection_file, results, options.to)


def _prepare(planned: PlannedTrainings, options: argparse.Namespace) -> None:
    from blockqnn.workers.training_processes import torchrun_command

    with as_search_error(planned.directory):
        work = planned.work(options.step, options.networks)
    contenders = [place for each in work.contenders for place in each.directories]
    for directory in [*contenders, *work.others]:
        print(torchrun_command(directory))
    if work.then_winner:
        print("# then the same command again with --step final: the winner is not known yet")
