"""`blockqnn export`: a trained network for other programs."""

import argparse
from typing import Any

from flows.cli import shared
from flows.cli.parser import add_command


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "export",
        "write a trained network for other programs",
        "blockqnn export runs/train-own/trainings/winner-everything-0-1a2b3c4d --to winner.onnx",
    )
    text = "a .safetensors file, or the directory of a training that has it"
    shared.add_path(parser, "source", "WEIGHTS", text)
    shared.add_path(parser, "--to", "FILE", ".onnx, or .pt2 for torch.export", required=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Write the network."""
    from blockqnn.network.export import export_command

    with shared.writing(options.to):
        print(export_command(options.source, options.to))
