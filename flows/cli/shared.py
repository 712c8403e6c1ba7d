"""What several commands share: options, reading a plan, running a flow, errors of writing."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockqnn import params
from blockqnn.errors import SettingsError, UserError
from blockqnn.settings import Plan
from blockqnn.storage import as_json
from flows.interruption import ending_with_dvc, remember_signals
from flows.runs import run_directory, runs_directory, search_directory
from flows.servers.prefect_api import choose_prefect_api, is_prefect

if TYPE_CHECKING:
    from blockqnn.estimate import Needs
    from flows.final_trainings import PlannedTrainings


def add_path(parser: Any, name: str, metavar: str, text: str, **more: Any) -> None:
    """Add an option or argument that is the path of a file or a directory; `text` is its help."""
    parser.add_argument(name, type=Path, metavar=metavar, help=text, **more)


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add the option --runs, the directory of all runs."""
    text = "directory of all runs and of the MLflow database (BLOCKQNN_RUNS, else runs)"
    add_path(parser, "--runs", "DIR", text, default=runs_directory())


def add_search_name(parser: argparse.ArgumentParser, *, alone: bool = True) -> None:
    """Add the options --name, that of a search, and --runs; `alone` says that the name may also be
    given without --name.
    """
    if alone:
        parser.add_argument("named", nargs="?", metavar="NAME", help="the search's name (demo)")
    text = argparse.SUPPRESS if alone else "the search's name (demo)"
    parser.add_argument("--name", default="demo", help=text)
    add_runs(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option --json."""
    parser.add_argument("--json", action="store_true", help="for programs: one JSON value")


def add_run_name(parser: argparse.ArgumentParser) -> None:
    """Add the options --name, that of a run of final trainings, and --runs."""
    parser.add_argument("--name", default=None, help="the run's name (train-LABEL)")
    add_runs(parser)


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Add the options that `load_plan` reads."""
    text = "a plan under training: (digits); {search}: that of the data set of the search"
    parser.add_argument("--data", metavar="LABEL", help=text)
    text = "where the images are: data.root, taken as it is, not as YAML"
    parser.add_argument("--root", metavar="DIR", help=text)
    add_settings(parser, None, "settings laid over the params file")


def add_searched(parser: argparse.ArgumentParser) -> None:
    """Add the option --search, from which `fill_in` makes a plan."""
    text = "a search in --runs: its images by the plan of their data set, its best blocks first"
    parser.add_argument("--search", metavar="NAME", help=text)


def add_settings(parser: argparse.ArgumentParser, profile: str | None, profiles: str) -> None:
    """Add the options --params, --profile, with its default and its help, and --set."""

    def named(text: str) -> str | None:
        return None if text == "none" else text

    parser.add_argument("--profile", type=named, default=profile, help=profiles)
    parser.add_argument("--params", default="params.yaml", metavar="FILE", help="the params file")
    text = "single settings, say recipe.epochs=3 (all of them: params.yaml)"
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text
    )


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Add the options --networks and --winner, which choose among a plan's final trainings."""
    text = "these final trainings alone: winner, or blocks and models of the plan"
    parser.add_argument("--networks", nargs="+", metavar="LABEL", help=text)
    add_path(parser, "--winner", "FILE", "a selection.json that names the winner")


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add the option --wait."""
    text = "let another process that has the run finish first"
    parser.add_argument("--wait", action="store_true", help=text)


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Add the options --dry-run and --json, which tells the same to programs."""
    text = "only say what it would take: time, memory, disk (some minutes, of large networks)"
    parser.add_argument("--dry-run", action="store_true", help=text)
    text = "what --dry-run says, for programs: one JSON value"
    parser.add_argument("--json", action="store_true", help=text)


def print_needs(needs: Needs, options: argparse.Namespace) -> None:
    """Print what a search or final trainings will take."""
    from flows.terminal.needs import needs_in_words

    if options.json:
        print(as_json(needs.to_dict()), end="")
    else:
        print("\n".join(needs_in_words(needs, options.runs)))


def fill_in(options: argparse.Namespace) -> None:
    """Put the name of the data set for {data}, and what --set, --root and --search say into
    `overrides`.

    The commands of dvc.yaml say {data}, since the shell would interpret a name written there.
    Raises `SettingsError`, and `SearchError` for a search that is not there.
    """
    given = vars(options)
    if given.get("named") is not None:
        options.name = options.named
    searched = options.command == "search"
    if not (searched or "data" in given):
        return
    plan = "params" in given and not searched
    of_search: dict[str, Any] = {}
    if plan and given.get("search") is not None:
        of_search = _plan_of(options)
    if plan and options.data is None:
        options.data = "digits"

    @cache
    def name() -> str:
        if searched or (plan and options.data == "{search}"):
            return params.data_of_search(Path(options.params), options.profile)
        return str(options.data)

    def filled_in(text: str) -> str:
        return text.replace("{data}", name()) if "{data}" in text else text

    for option in ("to", "models", "evaluated"):
        if (path := given.get(option)) is not None:
            given[option] = Path(filled_in(str(path)))
    if "set" in given:
        options.overrides = of_search | {
            key: filled_in(value) if isinstance(value, str) else value
            for key, value in map(assignment, options.set)
        }
    if given.get("root") is not None:
        options.overrides["data.root"] = options.root
    if plan:
        options.data = name()


RANKED = 5
"""Best blocks of a search that `train --search` ranks."""

PLANS = {"folder": "own-images"}
"""Plans by the name of their data set, where these differ."""


def _plan_of(options: argparse.Namespace) -> dict[str, Any]:
    """Settings of a plan that come from the search named by --search, whose images it has; the
    plan's label and the run's name become its own where none is given.
    """
    from blockqnn.search.history import read_search

    history = read_search(search_directory(options.runs, options.search))
    data = {k: v for k, v in history.settings.data.to_dict().items() if v not in (None, False)}
    own = PLANS.get(data["name"], data["name"])
    if options.data is None:
        options.data = own
    if options.name is None:
        options.name = f"train-{options.search}"
    images = {  # all of them, where the search took a part
        f"data.{key}": value for key, value in data.items() if key not in ("loaders", "images")
    }
    same = options.data == own
    return {"search": options.search, "top": RANKED, **(images if same else {})}


def assignment(text: str) -> tuple[str, Any]:
    """Name and value of one KEY=VALUE of --set. Raises `SettingsError`."""
    import yaml

    name, equals, value = text.partition("=")
    if not (equals and name):
        raise SettingsError(f"--set has {text!r}: write key=value, say recipe.epochs=3")
    try:
        return name, yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):  # impossible dates, deep nesting
        raise SettingsError(f"--set {name} has the value {value!r}, which is not YAML") from None


def load_plan(options: argparse.Namespace) -> Plan:
    """The plan of final trainings that was asked for. Raises `SettingsError`."""
    return params.load_plan(Path(options.params), options.data, options.profile, options.overrides)


def print_beginning(options: argparse.Namespace) -> None:
    """Print at once what begins and where it lies: the libraries that come next take seconds.

    Nothing begins by --dry-run, and programs read what --json prints. Raises `SettingsError` for a
    name that is not one plain word.
    """
    dry_run, as_values = (getattr(options, name, False) for name in ("dry_run", "json"))
    if as_values and not dry_run:
        raise SettingsError("--json is for what --dry-run prints: give both")
    name = options.name if options.name is not None else f"train-{options.data}"
    place = search_directory(options.runs, name)
    if not dry_run:
        print(f"{options.command} {name} in {place}", flush=True)
    elif not as_values:
        print(
            f"what {options.command} {name} takes on this machine: wait a minute, more if its "
            "networks are large",
            flush=True,
        )


def planned_trainings(options: argparse.Namespace) -> PlannedTrainings:
    """The trainings of the plan that was asked for; `options.name` becomes the run's name.

    Raises `SettingsError`.
    """
    from flows.final_trainings import PlannedTrainings

    plan = load_plan(options)
    options.name, directory = run_directory(options.runs, options.name, options.data)
    return PlannedTrainings(directory, options.runs, plan, options.data, options.winner)


def run_flow(name: str, options: argparse.Namespace, finished: Callable[[], bool]) -> None:
    """Run the flow of that name; its parameters are the options of the same names.

    Where a server that ran already is gone for good, the same command goes on without it. Errors of
    Prefect are logged and not raised where `finished` says that all work is done. Raises
    `PrefectError` when the server that was asked for cannot be used.
    """
    api = choose_prefect_api(options.runs)
    flow = getattr(import_module(f"flows.{name}"), name)  # imports Prefect, while its server starts
    arguments = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in vars(options).items()
        if key in signature(flow.fn).parameters
    }
    _quieten_prefect()
    if not api.temporary:
        from flows.servers.events import try_events_once

        try_events_once()
    gone = False
    try:
        with remember_signals(), ending_with_dvc(), api.watched():
            api.wait()
            flow(**arguments)
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        if not finished():
            if api.temporary or is_prefect(api.url):
                raise
            gone = True
        else:
            logging.warning("Prefect could not record the end of the flow: %s", error)
    finally:
        if api.temporary:  # nobody misses the events that Prefect had no time to send
            logging.getLogger("prefect._internal").handlers = [logging.NullHandler()]
        api.close()
    if gone:
        _go_on_without(api.url)


def print_page(name: str, runs: Path) -> None:
    """Print where MLflow shows a search's candidates, if it has them."""
    from flows.tracking.records import experiment_id, page_of
    from flows.tracking.store import is_server, tracking_uri, without_password

    uri = tracking_uri(runs)
    if is_server(uri):
        print(f"Every candidate: experiment blockqnn/{name} in MLflow at {without_password(uri)}")
    elif (experiment := experiment_id(name, runs)) is not None:
        serve = "blockqnn serve" if str(runs) == "runs" else f"blockqnn serve --runs {runs}"
        print(f"Every candidate: {serve}, then in MLflow")
        print(page_of(experiment, "http://127.0.0.1:5000"))


def _quieten_prefect() -> None:
    """Leave to the Prefect UI what a person at a terminal can do nothing about: tracebacks of flow
    and task runs, a busy server ("still processing"), events that a server that is gone did not
    get.
    """
    for runs in ("flow_runs", "task_runs"):
        logging.getLogger(f"prefect.{runs}").setLevel(logging.CRITICAL)
    for sender in ("EventsWorker", "APILogWorker"):
        logging.getLogger(sender).setLevel(logging.ERROR)
    logging.getLogger("prefect.events").setLevel(logging.CRITICAL)
    # a line for each event; Prefect sets its level anew, and leaves filters as they are
    internal = logging.getLogger("prefect._internal.concurrency")
    internal.addFilter(lambda record: "EventsWorker" not in record.getMessage())


def _go_on_without(url: str) -> None:
    """Begin this command again in this process, which has let go of everything, without the server
    at `url`. Prefect takes its address once, at import.
    """
    print(f"blockqnn: the Prefect server at {url} is gone: going on without it", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os.environ.pop("PREFECT_API_URL", None)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@contextmanager
def writing(to: Path) -> Iterator[None]:
    """Turn an OSError of the block, which writes to `to`, into a `UserError` with its remedy."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to {to} ({error.strerror or error}): free some space, or name another "
            "place with --to, then give the same command again"
        ) from None
