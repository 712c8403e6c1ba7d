"""The arguments of the `blockqnn` command and of its subcommands."""

import argparse
from pathlib import Path
from typing import Any

from blockqnn import __version__
from blockqnn.errors import SettingsError
from flows.runs import runs_directory

EPILOG = """\
examples:
  blockqnn search                             the demo: minutes on a laptop, no download
  blockqnn search --name mine --profile paper --set seed=1
  blockqnn search --name own --set data.name=folder data.root=~/images data.image_size=64
  blockqnn status --name mine                 how far it is, also while it runs
  blockqnn show A --to block.svg              draw a published block
  blockqnn train --data cifar10 --set search=mine top=3
                                              rank its best blocks, train the winner and S
  blockqnn evaluate --data cifar10            all that was trained, on the test images
  blockqnn report --data cifar10 --search mine

In directories, files and values of --set, {data} stands for the LABEL of --data, and for
data.name of a search.

What was stopped, killed or lost its machine goes on when the same command is given again.
"""

RUNS = "directory of all runs and of the MLflow database (BLOCKQNN_RUNS, else runs)"


def parse(arguments: Any = None) -> argparse.Namespace:
    """The command, by name, and its options. Exits with status 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="blockqnn",
        description="Neural architecture search by Q-learning over convolutional blocks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"blockqnn {__version__}")
    commands = parser.add_subparsers(
        title="commands", required=True, metavar="COMMAND", dest="command"
    )
    _add_search(commands)
    _add_trainings(commands)
    _add_compare(commands)
    _add_export(commands)
    _add_looks(commands)
    _add_servers(commands)
    return parser.parse_args(arguments)


def assignment(text: str) -> tuple[str, Any]:
    """(name, value) of a `--set`; raises `SettingsError`."""
    import yaml

    name, equals, value = text.partition("=")
    if not (equals and name):
        raise SettingsError(f"--set has {text!r}: write key=value, say recipe.epochs=3")
    try:
        return name, yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):  # of dates, of depths
        raise SettingsError(f"--set {name} has the value {value!r}, which is not YAML") from None


def _add_search(commands: Any) -> None:
    search = commands.add_parser("search", help="search for blocks, or go on with a search")
    _add_name(search)
    profiles = "laid over the params file: demo (default), cifar10-small, fast, paper, none"
    _add_settings(search, "demo", profiles)
    search.add_argument(
        "--by-settings",
        action="store_true",
        help="append to the name a hash of settings and images: others are another search",
    )
    search.add_argument(
        "--to",
        type=Path,
        metavar="DIR",
        help="write best.json, front.csv, metrics.json, iterations.csv there",
    )
    _add_wait(search)


def _add_trainings(commands: Any) -> None:
    train = commands.add_parser(
        "train", help="rank a search's best blocks, then train the winner and others on everything"
    )
    _add_plan(train)
    _add_run(train)
    train.add_argument(
        "--step",
        choices=["selection", "final", "all"],
        default="all",
        help="selection: the ranking alone; final: on all training images alone; all (default)",
    )
    _add_networks(train)
    train.add_argument(
        "--winner", type=Path, metavar="FILE", help="a selection.json that names the winner"
    )
    train.add_argument(
        "--prepare",
        action="store_true",
        help="train nothing: write the jobs and print the commands for several machines",
    )
    train.add_argument(
        "--to", type=Path, metavar="DIR", help="write the selection, or results and weights, there"
    )
    _add_wait(train)

    evaluate = commands.add_parser("evaluate", help="judge final trainings on the test images")
    _add_plan(evaluate)
    _add_run(evaluate)
    _add_networks(evaluate)
    evaluate.add_argument(
        "--winner", type=Path, metavar="FILE", help="a selection.json that names the winner"
    )
    evaluate.add_argument(
        "--from",
        dest="models",
        type=Path,
        metavar="DIR",
        help="judge what blockqnn train --to wrote below DIR, a directory a network",
    )
    evaluate.add_argument(
        "--to", type=Path, metavar="DIR", help="write evaluations.json and metrics.json there"
    )
    _add_wait(evaluate)

    report = commands.add_parser("report", help="one page about final trainings and their search")
    report.add_argument(
        "--data", default="digits", metavar="LABEL", help="the plan that was trained (digits)"
    )
    _add_run(report)
    report.add_argument(
        "--search",
        metavar="NAME",
        help="a search, or a directory it wrote --to; the selection's where it is in the runs",
    )
    report.add_argument(
        "--winner", type=Path, metavar="FILE", help="a selection.json that is not the run's own"
    )
    report.add_argument(
        "--from",
        dest="evaluated",
        type=Path,
        metavar="DIR",
        help="report what blockqnn evaluate --to wrote there, instead of a run",
    )
    report.add_argument(
        "--to", type=Path, metavar="DIR", help="for report.html and the rest (the run's report/)"
    )

    data = commands.add_parser("data", help="write a data set into one frozen file")
    _add_plan(data)
    data.add_argument(
        "--to", type=Path, required=True, metavar="FILE", help="to read with data.name=prepared"
    )

    plan = commands.add_parser("plan", help="the settings of final trainings, resolved, as JSON")
    _add_plan(plan)
    plan.add_argument("--to", type=Path, metavar="FILE", help="instead of the terminal")


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser("compare", help="agents on one task: curves, a table, a test")
    source = compare.add_mutually_exclusive_group(required=True)
    source.add_argument("--cells", type=Path, metavar="FILE", help="NAS-Bench-201's cells, CSV")
    source.add_argument("--blocks", type=Path, metavar="FILE", help="a table of trained blocks")
    source.add_argument("--searches", nargs="+", metavar="NAME", help="finished searches")
    compare.add_argument("--data", help="of --cells: cifar10 (default), cifar100, imagenet16")
    compare.add_argument(
        "--agents",
        metavar="LIST",
        help="dyna_q,q_learning,evolution,random (default) or tpe (Optuna's), separated by commas; "
        "settings after colons, say q_learning:learning_rate=0.1, evolution:population=20:batch=5",
    )
    compare.add_argument("--budget", type=int, metavar="N", help="of each run (400)")
    compare.add_argument("--seeds", type=int, metavar="N", help="runs an agent (20)")
    compare.add_argument(
        "--count",
        choices=["evaluations", "trainings"],
        default="evaluations",
        help="what the budget counts: every proposal (default), or no repeats",
    )
    compare.add_argument(
        "--checkpoints",
        nargs="+",
        type=int,
        metavar="N",
        help="where the table looks (a quarter, half and all of the budget)",
    )
    compare.add_argument("--against", metavar="AGENT", help="reference of the test (the first)")
    compare.add_argument("--jobs", type=int, metavar="N", help="processes (one a core)")
    compare.add_argument("--runs", type=Path, default=runs_directory(), metavar="DIR", help=RUNS)
    compare.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="for comparison.md, .csv and .png"
    )


def _add_export(commands: Any) -> None:
    export = commands.add_parser("export", help="write a trained network for other programs")
    export.add_argument(
        "source",
        type=Path,
        metavar="WEIGHTS",
        help="a .safetensors file, or the directory of a training that has it",
    )
    export.add_argument(
        "--to", type=Path, required=True, metavar="FILE", help=".onnx, or .pt2 for torch.export"
    )


def _add_looks(commands: Any) -> None:
    status = commands.add_parser("status", help="how far a search is, from its journal")
    _add_name(status)
    status.add_argument("--top", type=int, default=10, metavar="K", help="blocks in the table")

    show = commands.add_parser("show", help="print a block and its cost, and draw it")
    show.add_argument(
        "block", help="a name (A, B, S, inception, residual), a code, or a candidate's number"
    )
    _add_name(show)
    show.add_argument("--to", type=Path, metavar="FILE", help="drawing, .svg or .png")


def _add_servers(commands: Any) -> None:
    track = commands.add_parser("track", help="write a run into MLflow again, from its files")
    _add_name(track)

    serve = commands.add_parser(
        "serve", help="Prefect server and worker with blockqnn's deployments, MLflow UI"
    )
    serve.add_argument("--runs", type=Path, default=runs_directory(), metavar="DIR", help=RUNS)
    serve.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at; others than this machine's own need passwords "
        "(docs/operations.md)",
    )
    serve.add_argument(
        "--insecure", action="store_true", help="any --host, and whoever reaches it is let in"
    )
    serve.add_argument("--prefect-port", type=int, default=4200, metavar="PORT", help="Prefect UI")
    serve.add_argument("--mlflow-port", type=int, default=5000, metavar="PORT", help="MLflow UI")


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="demo", help="the search's name (demo)")
    parser.add_argument("--runs", type=Path, default=runs_directory(), metavar="DIR", help=RUNS)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default=None, help="the run's name (train-LABEL)")
    parser.add_argument("--runs", type=Path, default=runs_directory(), metavar="DIR", help=RUNS)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        default="digits",
        metavar="LABEL",
        help="a plan under training: (digits); {search}: that of the data set of the search",
    )
    parser.add_argument(
        "--root", metavar="DIR", help="where the images are: data.root, taken as it is, not as YAML"
    )
    _add_settings(parser, None, "settings laid over the params file")


def _add_settings(parser: argparse.ArgumentParser, profile: str | None, profiles: str) -> None:
    parser.add_argument("--profile", default=profile, help=profiles)
    parser.add_argument("--params", default="params.yaml", metavar="FILE", help="the params file")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="single settings, say recipe.epochs=3 (all of them: params.yaml)",
    )


def _add_networks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--networks",
        nargs="+",
        metavar="LABEL",
        help="these final trainings alone: winner, or blocks and models of the plan",
    )


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--wait", action="store_true", help="let another process that has the run finish first"
    )
