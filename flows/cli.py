"""The `blockqnn` command. Exit status: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockqnn import __version__
from blockqnn.errors import SettingsError, UserError
from flows.environment import PrefectError, quiet
from flows.names import name_by_settings, runs_directory, search_directory

if TYPE_CHECKING:
    from blockqnn.plan import Plan

EPILOG = """\
examples:
  blockqnn search                             the demo: minutes on a laptop, no download
  blockqnn search --name mine --profile paper --set seed=1
  blockqnn search --name own --set data.name=folder data.root=~/images data.image_size=64
  blockqnn status --name mine                 how far it is, also while it runs
  blockqnn show A --to block.svg              draw a published block

A search that was stopped, killed or lost its machine goes on when the same command is given again.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    quiet()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except SettingsError as error:
        print(f"blockqnn: {error}", file=sys.stderr)
        return 2
    except (UserError, PrefectError) as error:
        print(f"blockqnn: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nblockqnn: stopped; nothing is lost, the same command continues", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="blockqnn",
        description="Neural architecture search by Q-learning over convolutional blocks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"blockqnn {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    search = commands.add_parser("search", help="search for blocks, or go on with a search")
    _add_name(search)
    search.add_argument(
        "--profile",
        default="demo",
        help="settings laid over the params file: demo (default), cifar10-small, paper, none",
    )
    search.add_argument("--params", default="params.yaml", metavar="FILE", help="the params file")
    search.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="single settings, say recipe.epochs=3 (all of them: params.yaml)",
    )
    search.add_argument(
        "--by-settings",
        action="store_true",
        help="append to the name a hash of settings and images: others are another search",
    )
    search.add_argument(
        "--to", type=Path, metavar="DIR", help="write best.json, metrics.json, iterations.csv there"
    )
    search.add_argument(
        "--wait", action="store_true", help="let another process that runs the search finish first"
    )
    search.set_defaults(command=_search)

    status = commands.add_parser("status", help="how far a search is, from its journal")
    _add_name(status)
    status.add_argument("--top", type=int, default=10, metavar="K", help="blocks in the table")
    status.set_defaults(command=_status)

    show = commands.add_parser("show", help="print a block and its cost, and draw it")
    show.add_argument(
        "block", help="a name (A, B, S, inception, residual), a code, or a candidate's number"
    )
    _add_name(show)
    show.add_argument("--to", type=Path, metavar="FILE", help="drawing, .svg or .png")
    show.set_defaults(command=_show)

    data = commands.add_parser("data", help="write a data set into one frozen file")
    _add_plan(data)
    data.add_argument(
        "--to", type=Path, required=True, metavar="FILE", help="to read with data.name=prepared"
    )
    data.set_defaults(command=_data)

    plan = commands.add_parser("plan", help="the settings of final trainings, resolved, as JSON")
    _add_plan(plan)
    plan.add_argument("--to", type=Path, metavar="FILE", help="instead of the terminal")
    plan.set_defaults(command=_plan)

    track = commands.add_parser("track", help="write a search into MLflow again, from its journal")
    _add_name(track)
    track.set_defaults(command=_track)

    serve = commands.add_parser(
        "serve", help="Prefect server and worker with the deployment blockqnn/search, MLflow UI"
    )
    serve.add_argument("--runs", type=Path, default=runs_directory(), metavar="DIR", help=RUNS)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at")
    serve.add_argument("--prefect-port", type=int, default=4200, metavar="PORT", help="Prefect UI")
    serve.add_argument("--mlflow-port", type=int, default=5000, metavar="PORT", help="MLflow UI")
    serve.set_defaults(command=_serve)
    return parser


RUNS = "directory of all searches and of the MLflow database (BLOCKQNN_RUNS, else runs)"


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="demo", help="the search's name (demo)")
    parser.add_argument("--runs", type=Path, default=runs_directory(), metavar="DIR", help=RUNS)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", default="digits", metavar="LABEL", help="a plan under training: (digits)"
    )
    parser.add_argument("--profile", default=None, help="settings laid over the params file")
    parser.add_argument("--params", default="params.yaml", metavar="FILE", help="the params file")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="single settings of the plan, say recipe.epochs=3",
    )


def _load_plan(options: argparse.Namespace) -> Plan:
    from blockqnn.params import load_plan

    overrides = dict(_assignment(text) for text in options.set)
    profile = None if options.profile == "none" else options.profile
    return load_plan(Path(options.params), options.data, profile, overrides)


def _search(options: argparse.Namespace) -> int:
    from blockqnn.params import load_settings
    from flows.environment import choose_prefect_api

    overrides = dict(_assignment(text) for text in options.set)
    profile = None if options.profile == "none" else options.profile
    settings = load_settings(Path(options.params), profile, overrides)  # an error costs no waiting
    name = name_by_settings(options.name, settings) if options.by_settings else options.name
    directory = search_directory(options.runs, name)
    api = choose_prefect_api()

    from flows.search import search

    for runs in ("flow_runs", "task_runs"):  # their tracebacks are for the Prefect UI
        logging.getLogger(f"prefect.{runs}").setLevel(logging.CRITICAL)
    api.wait()
    try:
        search(name, profile, overrides, options.params, str(options.runs), options.wait)
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        if not _is_finished(directory):
            raise
        logging.warning("Prefect could not record the end of the search: %s", error)
    finally:
        api.close()
    from flows.report import print_result

    print_result(directory, name, options.runs)
    if options.to is not None:
        _freeze(directory, name, options.to)
    return 0


def _freeze(directory: Path, name: str, to: Path) -> None:
    """The last act of a pipeline's stage: nothing is written before the search is finished."""
    from blockqnn.history import read_search
    from evaluation.frozen import write_frozen

    with _writing(to):
        write_frozen(read_search(directory), name, to)


@contextmanager
def _writing(to: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {to} ({error.strerror or error}): free some space, or name another "
            "place with --to, then give the same command again"
        ) from None


def _is_finished(directory: Path) -> bool:
    """Whether the journal, which alone decides it, says so."""
    from blockqnn.history import read_search

    try:
        return read_search(directory).finished
    except UserError:
        return False


def _status(options: argparse.Namespace) -> int:
    from flows.report import print_status

    print_status(search_directory(options.runs, options.name), options.name, options.top)
    return 0


def _show(options: argparse.Namespace) -> int:
    from flows.report import print_block

    print_block(options.block, search_directory(options.runs, options.name), options.to)
    return 0


def _data(options: argparse.Namespace) -> int:
    from blockqnn.prepared import prepare

    prepare(_load_plan(options).data, options.to)
    return 0


def _plan(options: argparse.Namespace) -> int:
    from evaluation.frozen import as_json, write_json

    plan = _load_plan(options).to_dict()
    if options.to is None:
        print(as_json(plan), end="")
        return 0
    with _writing(options.to):
        options.to.parent.mkdir(parents=True, exist_ok=True)
        write_json(plan, options.to)
    return 0


def _track(options: argparse.Namespace) -> int:
    from flows.tracking import Tracker

    tracker = Tracker(search_directory(options.runs, options.name), options.name, options.runs)
    print(f"{tracker.sync()} runs written to {tracker.uri}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from flows.serve import serve

    return serve(options.runs, options.host, options.prefect_port, options.mlflow_port)


def _assignment(text: str) -> tuple[str, Any]:
    import yaml

    name, equals, value = text.partition("=")
    if not (equals and name):
        raise SettingsError(f"--set has {text!r}: write key=value, say recipe.epochs=3")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError:
        raise SettingsError(f"--set {name} has the value {value!r}, which is not YAML") from None


if __name__ == "__main__":
    sys.exit(main())
