"""`blockqnn track` and `blockqnn serve`: what MLflow and Prefect show of the runs."""

import argparse
from typing import Any

from blockqnn.errors import UserError
from blockqnn.storage import is_held
from flows.cli import shared
from flows.cli.parser import add_command
from flows.runs import search_directory


def add(commands: Any) -> None:
    track = add_command(
        commands,
        "track",
        "write a run into MLflow again, from its files",
        "blockqnn track own",
    )
    shared.add_search_name(track)
    track.set_defaults(run=run_track)

    serve = add_command(
        commands,
        "serve",
        "run Prefect's server, a worker with blockqnn's deployments, and MLflow's pages",
        "blockqnn serve",
    )
    shared.add_runs(serve)
    text = (
        "address to listen at; others than this machine's own need passwords (docs/operations.md)"
    )
    serve.add_argument("--host", default="127.0.0.1", help=text)
    text = "any --host, and whoever reaches it is let in"
    serve.add_argument("--insecure", action="store_true", help=text)
    serve.add_argument("--prefect-port", type=int, default=4200, metavar="PORT", help="Prefect UI")
    serve.add_argument("--mlflow-port", type=int, default=5000, metavar="PORT", help="MLflow UI")
    serve.set_defaults(run=run_serve)


def run_track(options: argparse.Namespace) -> None:
    """Write what MLflow lacks of a search or of final trainings. Raises `UserError`."""
    from flows.tracking.background import MLflowRuns, one_line
    from flows.tracking.experiment import Experiment
    from flows.tracking.searches import SearchRuns
    from flows.tracking.store import database_lock, without_password
    from flows.tracking.trainings import TrainingRuns

    directory = search_directory(options.runs, options.name)
    place = directory, options.name, options.runs
    is_run = (directory / "trainings").is_dir()
    found: MLflowRuns = TrainingRuns(*place) if is_run else SearchRuns(*place)
    uri = without_password(found.uri)
    try:
        print(f"{found.sync()} runs written to {uri}")
        if not is_held(directory):
            with database_lock(options.runs):
                Experiment(options.name, options.runs).end_left()
    except UserError:
        raise
    except Exception as error:  # MLflow raises many things for a server or a database it lacks
        raise UserError(f"MLflow at {uri} is not written ({one_line(error)})") from error


def run_serve(options: argparse.Namespace) -> int:
    """Serve until a signal; returns the exit status."""
    from flows.servers.serve import serve

    ports = options.prefect_port, options.mlflow_port
    return serve(options.runs, options.host, *ports, insecure=options.insecure)
