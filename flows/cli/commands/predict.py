"""`blockqnn predict`: a trained network's classes of new pictures."""

import argparse
import sys
from pathlib import Path
from typing import Any

from blockqnn.storage import as_json
from flows.cli import shared
from flows.cli.parser import add_command


def add(commands: Any) -> None:
    parser = add_command(
        commands,
        "predict",
        "say what is on pictures, by a trained network",
        "blockqnn predict runs/train-own/trainings/winner-everything-0-1a2b3c4d new/*.jpg",
        "blockqnn predict winner.onnx new/ --json",
    )
    text = "a final training's directory or weights, or an exported .onnx"
    shared.add_path(parser, "model", "MODEL", text)
    text = "pictures, or directories of them"
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help=text)
    parser.add_argument("--top", type=int, default=3, metavar="K", help="classes of each (3)")
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the classes of each picture; returns 1 if one could not be read."""
    from evaluation.class_names import readable_classes
    from evaluation.prediction import image_files, load_predictor, predict

    files = list(image_files(options.images))
    found = list(predict(load_predictor(options.model), files, max(1, options.top)))
    if options.json:
        rows = [
            {"file": str(each.file), "classes": each.classes, "error": each.error or None}
            for each in found
        ]
        print(as_json(rows), end="")
    else:
        width = max(len(str(each.file)) for each in found)
        for each in found:
            named = zip(readable_classes([*each.classes]), each.classes.values(), strict=True)
            shown = ", ".join(f"{name} {100 * p:.1f} %" for name, p in named)
            print(f"{str(each.file):<{width}}  {shown or '-'}")
    for each in found:
        if each.error:
            text = f"blockqnn: {each.file} is not a readable image ({each.error})"
            print(text, file=sys.stderr)
    return int(any(each.error for each in found))
