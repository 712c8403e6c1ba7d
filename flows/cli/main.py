"""The `blockqnn` command. Exit status: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockqnn.errors import SettingsError, UserError
from flows.cli.shared import assignment, parse
from flows.interruption import remember_signals
from flows.runs import name_by_settings, run_directory, search_directory
from flows.servers.prefect_api import PrefectError, quiet

if TYPE_CHECKING:
    from blockqnn.settings import Plan
    from evaluation.stages.trained import Trained
    from flows.final_trainings import PlannedTrainings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    quiet()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    options = parse(arguments)
    try:
        _fill_in(options)
        return COMMANDS[options.command](options)
    except SettingsError as error:
        print(f"blockqnn: {error}", file=sys.stderr)
        return 2
    except (UserError, PrefectError) as error:
        print(f"blockqnn: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = "nothing is lost, the same command continues"
        if options.command == "compare":
            kept = "nothing was written, the same command begins anew"
        print(f"\nblockqnn: stopped; {kept}", file=sys.stderr)
        return 1


def _fill_in(options: argparse.Namespace) -> None:
    """Put the name of the data set for {data}, and what --set and --root say into `overrides`.

    dvc.yaml has {data} where the name itself would be the shell's to read.
    """
    given = vars(options)
    searched = options.command == "search"

    def name() -> str:
        from blockqnn.params import data_of_search

        if searched or ("params" in given and options.data == "{search}"):
            return data_of_search(Path(options.params), _profile(options))
        return str(options.data)

    def filled_in(text: str) -> str:
        return text.replace("{data}", name()) if "{data}" in text else text

    if not (searched or "data" in given):
        return
    for option in ("to", "models", "evaluated"):
        if (path := given.get(option)) is not None:
            given[option] = Path(filled_in(str(path)))
    if "set" in given:
        options.overrides = {
            key: filled_in(value) if isinstance(value, str) else value
            for key, value in map(assignment, options.set)
        }
    if given.get("root") is not None:
        options.overrides["data.root"] = options.root
    if not searched and "params" in given:
        options.data = name()


def _load_plan(options: argparse.Namespace) -> Plan:
    from blockqnn.params import load_plan

    return load_plan(Path(options.params), options.data, _profile(options), options.overrides)


def _profile(options: argparse.Namespace) -> str | None:
    return None if options.profile == "none" else options.profile


def _search(options: argparse.Namespace) -> int:
    from blockqnn.params import load_settings

    overrides, profile = options.overrides, _profile(options)
    settings = load_settings(Path(options.params), profile, overrides)  # an error costs no waiting
    name = name_by_settings(options.name, settings) if options.by_settings else options.name
    directory = search_directory(options.runs, name)
    _run_flow(
        "search",
        [name, profile, overrides, options.params, str(options.runs), options.wait],
        lambda: _is_finished(directory),
    )
    from flows.terminal.search_tables import print_result

    print_result(directory, name, options.runs)
    if options.to is not None:
        _freeze(directory, name, options.to)
    return 0


def _run_flow(name: str, arguments: Sequence[Any], finished: Callable[[], bool]) -> None:
    """Run a flow with a Prefect API at hand; trouble with that when all is `finished` is none."""
    from flows.servers.prefect_api import choose_prefect_api, is_prefect

    api = choose_prefect_api()
    flow = getattr(import_module(f"flows.{name}"), name)  # Prefect, while its server starts
    for runs in ("flow_runs", "task_runs"):  # their tracebacks are for the Prefect UI
        logging.getLogger(f"prefect.{runs}").setLevel(logging.CRITICAL)
    for sender in ("EventsWorker", "APILogWorker"):  # a busy server keeps them: "still processing"
        logging.getLogger(sender).setLevel(logging.ERROR)
    try:
        with remember_signals():
            api.wait()
            flow(*arguments)
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        if not finished():
            if is_prefect(api.url):
                raise
            raise PrefectError(
                f"the Prefect server at {api.url} is gone ({type(error).__name__}); nothing is "
                "lost: start it (`blockqnn serve`), or give the same command again without it"
            ) from None
        logging.warning("Prefect could not record the end of the flow: %s", error)
    finally:
        if api.temporary:  # what Prefect had no time to tell it, nobody misses
            logging.getLogger("prefect.events").setLevel(logging.CRITICAL)
            logging.getLogger("prefect._internal").handlers = [logging.NullHandler()]
        api.close()


def _freeze(directory: Path, name: str, to: Path) -> None:
    """The last act of a pipeline's stage: nothing is written before the search is finished."""
    from blockqnn.search.history import read_search
    from evaluation.stages.search import write_search

    with _writing(to):
        write_search(read_search(directory), name, to)


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
    from blockqnn.search.history import read_search

    try:
        return read_search(directory).finished
    except UserError:
        return False


def _train(options: argparse.Namespace) -> int:
    from evaluation.stages.trained import write_trained
    from flows.final_trainings import PlannedTrainings
    from flows.terminal.training_tables import print_trainings

    plan = _load_plan(options)  # an error costs no waiting
    name, directory = run_directory(options.runs, options.name, options.data)
    planned = PlannedTrainings(directory, options.runs, plan, options.data, options.winner)
    planned.chosen(options.networks)
    if options.prepare:
        return _prepare(planned, options)
    winner = str(options.winner) if options.winner else None
    common = options.data, name, _profile(options), options.overrides, options.params
    asked = options.step, options.networks
    _run_flow(
        "train",
        [*common, str(options.runs), *asked, winner, options.wait],
        lambda: bool(planned.results(*asked)),
    )
    results = planned.results(*asked)
    print_trainings(list(results.values()))
    print(f"All of it: {directory}/trainings/")
    if options.to is not None:
        with _writing(options.to):
            write_trained(planned.selection_file, results, options.to)
    return 0


def _prepare(planned: PlannedTrainings, options: argparse.Namespace) -> int:
    from blockqnn.storage import as_search_error
    from blockqnn.workers.training_processes import torchrun_command

    with as_search_error(planned.directory):
        work = planned.work(options.step, options.networks)
    for directory in [*(contender.directory for contender in work.contenders), *work.others]:
        print(torchrun_command(directory))
    if work.then_winner:
        print("# then the same command again with --step final: the winner is not known yet")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from evaluation.stages.evaluated import write_judged
    from flows.final_trainings import PlannedTrainings
    from flows.terminal.training_tables import network_table, print_networks

    plan = _load_plan(options)
    name, directory = run_directory(options.runs, options.name, options.data)
    planned = PlannedTrainings(directory, options.runs, plan, options.data, options.winner)
    places = [str(path) if path else None for path in (options.winner, options.models)]
    common = options.data, name, _profile(options), options.overrides, options.params

    def found() -> tuple[list[Trained], list[dict[str, Any]]]:
        from flows.evaluate import finals, read_evaluations

        trained = finals(planned, options.networks, options.models)
        return trained, read_evaluations(directory, trained, plan)

    _run_flow(
        "evaluate",
        [*common, str(options.runs), options.networks, *places, options.wait],
        lambda: bool(found()[1]),
    )
    trained, evaluations = found()
    results = [each.result for each in trained]
    print_networks(network_table(results, evaluations))
    if options.to is not None:
        with _writing(options.to):
            write_judged(name, results, evaluations, options.to)
    return 0


def _report(options: argparse.Namespace) -> int:
    from blockqnn.search.history import JOURNAL
    from evaluation.report import write_report
    from evaluation.results import read_run, run_of
    from evaluation.stages.evaluated import read_judged
    from evaluation.stages.selection import read_selection

    _, directory = run_directory(options.runs, options.name, options.data)
    selection = read_selection(options.winner) if options.winner is not None else None
    if options.evaluated is not None:
        run = run_of(*read_judged(options.evaluated), selection)
        command = "dvc repro"
    else:
        run = read_run(directory)
        run = run if selection is None else replace(run, selection=selection)
        command = f"blockqnn train --data {options.data} && blockqnn evaluate --data {options.data}"
    search = None
    if options.search is not None:
        frozen = Path(options.search)
        is_frozen = (frozen / "best.json").exists()
        search = frozen if is_frozen else search_directory(options.runs, options.search)
    elif name := (run.selection or {}).get("search"):  # while it is here
        own = search_directory(options.runs, str(name))
        search = own if (own / JOURNAL).exists() else None
    to = options.to if options.to is not None else directory / "report"
    with _writing(to):
        print(write_report(run, to, search=search, command=command))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from flows.cli.compare import compare

    with _writing(options.to):
        print(compare(options))
    return 0


def _export(options: argparse.Namespace) -> int:
    from blockqnn.network.export import export_command

    with _writing(options.to):
        export_command(options.source, options.to)
    return 0


def _status(options: argparse.Namespace) -> int:
    from flows.terminal.search_tables import print_status

    print_status(search_directory(options.runs, options.name), options.name, options.top)
    return 0


def _show(options: argparse.Namespace) -> int:
    from flows.terminal.search_tables import print_block

    print_block(options.block, search_directory(options.runs, options.name), options.to)
    return 0


def _data(options: argparse.Namespace) -> int:
    from blockqnn.data.prepare import prepare

    prepare(_load_plan(options).data, options.to)
    return 0


def _plan(options: argparse.Namespace) -> int:
    from blockqnn.storage import as_json, write_json

    plan = _load_plan(options).to_dict()
    if options.to is None:
        print(as_json(plan), end="")
        return 0
    with _writing(options.to):
        options.to.parent.mkdir(parents=True, exist_ok=True)
        write_json(plan, options.to)
    return 0


def _track(options: argparse.Namespace) -> int:
    from flows.tracking.background import Mirror, one_line
    from flows.tracking.searches import SearchRuns
    from flows.tracking.store import without_password
    from flows.tracking.trainings import TrainingRuns

    directory = search_directory(options.runs, options.name)
    is_run = (directory / "trainings").is_dir()
    place = directory, options.name, options.runs
    mirror: Mirror = TrainingRuns(*place) if is_run else SearchRuns(*place)
    uri = without_password(mirror.uri)
    try:
        print(f"{mirror.sync()} runs written to {uri}")
    except UserError:
        raise
    except Exception as error:  # MLflow raises many things for a server or a database it lacks
        raise UserError(f"MLflow at {uri} is not written ({one_line(error)})") from error
    return 0


def _serve(options: argparse.Namespace) -> int:
    from flows.servers.serve import serve

    ports = options.prefect_port, options.mlflow_port
    return serve(options.runs, options.host, *ports, insecure=options.insecure)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "search": _search,
    "train": _train,
    "evaluate": _evaluate,
    "report": _report,
    "compare": _compare,
    "export": _export,
    "data": _data,
    "plan": _plan,
    "status": _status,
    "show": _show,
    "track": _track,
    "serve": _serve,
}
