"""What is printed of a search and of a block."""

from pathlib import Path
from typing import Any

from blockqnn.errors import SettingsError
from blockqnn.search.history import History, read_search
from blockqnn.settings import NetworkSettings
from blockqnn.space import AS_SET, Block, Shape, design_of
from blockqnn.storage import as_json
from blockqnn.zoo import named_design
from evaluation.after_search import BEST
from evaluation.candidates.best_table import BALANCED, LATENCY, RUNG, best_table
from evaluation.drawing import draw_block
from evaluation.stages.doubts import doubts_of
from flows.terminal.say import print_table


def status_of(directory: Path, name: str, top: int) -> dict[str, Any]:
    """How far a search is, and its best `top` blocks so far, as plain values: accuracies and
    rewards in percent, iterations counted from 1.
    """
    history = read_search(directory)
    kinds = [r.outcome.kind for r in history.results if r.same_as is None]
    return {
        "name": name,
        "state": "finished" if history.finished else "unfinished",
        "iteration": min(history.iteration + 1, history.iterations),
        "iterations": history.iterations,
        "epsilon": history.epsilon,
        "candidates": len(history.results),
        "total": history.total,
        "pending": len(history.pending),
        "outcomes": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "repeated": sum(r.same_as is not None for r in history.results),
        "device_hours": history.device_hours,
        "best": best_table(history.best(top)),
        "notes": doubts_of(history),
    }


def print_status(directory: Path, name: str, top: int) -> None:
    """Print how far a search is, and its best `top` blocks so far."""
    found = status_of(directory, name, top)
    counts = ", ".join(f"{count} {kind}" for kind, count in found["outcomes"].items())
    state = "finished" if found["state"] == "finished" else f"{found['pending']} pending"
    print(
        f"{name}: iteration {found['iteration']} of {found['iterations']}, epsilon "
        f"{found['epsilon']}, {found['candidates']} of {found['total']} candidates "
        f"({counts or 'none trained'}, {found['repeated']} repeated), {state}"
    )
    print_best(directory, top)


def print_result(directory: Path) -> None:
    """Print the best blocks of a finished search, and where its files are."""
    print_best(directory, BEST)
    names = ("learning_curve.png", "front.png", "best_1.png", "best.md")
    there = ", ".join(file for file in names if (directory / file).exists())
    print(f"Pictures and tables: {directory}/ ({there})")


def print_block(text: str, directory: Path, drawing: Path | None, *, as_text: bool = True) -> None:
    """Print the code, key, density and cost of a block, as JSON unless `as_text`, and draw it into
    a file if one is given.

    `text` is a name, a code, or the number of a candidate of the search in `directory`. Raises
    `SettingsError` for anything else.
    """
    history, shape = None, AS_SET
    if text.isdecimal() and len(text) < 10:
        history = read_search(directory)
        if int(text) >= len(history.candidates):
            raise SettingsError(
                f"candidate is {text}: the search in {directory} has 0 to "
                f"{len(history.candidates) - 1}"
            )
        candidate = history.candidates[int(text)]
        block, shape = candidate.block, candidate.shape
    else:
        _, block, shape = named_design(text, "block is", ", a candidate's number")
    facts = _facts(block, shape, history, text)
    if as_text:
        for name, value in facts.items():
            print(f"{name:<21} {value}")
    else:
        print(as_json(facts), end="")
    if drawing is not None:
        try:
            draw_block(block, drawing, f"Block {text}" if len(text) < 24 else "")
        except (OSError, ValueError) as error:
            raise SettingsError(f"--to is {str(drawing)!r}: {error}") from None
        if as_text:
            print(f"drawn to {drawing}")


def _facts(block: Block, shape: Shape, history: History | None, text: str) -> dict[str, str]:
    design = design_of(block, shape)
    facts = {"code": str(design), "key": design.key, "density": f"{block.density:.3f}"}
    facts["leaves"] = ", ".join(map(str, block.leaves)) or "none"
    network, classes, channels, size = NetworkSettings().shaped(shape), 10, 3, 32
    if history is not None:
        candidate, task = history.candidates[int(text)], history.task
        network = history.settings.shaped(candidate.shape).network
        if candidate.of is not None:
            facts["rung"] = f"{candidate.rung + 1}, from candidate {candidate.of}"
        classes, channels, size = task.num_classes, task.in_channels, task.image_size
        if (result := history.result(int(text))) is not None:
            outcome = result.outcome
            facts["outcome"] = f"{outcome.kind} {outcome.reason}".strip()
            facts["reward"] = f"{result.reward:.2f}"
            if outcome.accuracy is not None:
                facts["accuracy"] = f"{outcome.accuracy:.2f} %"
            if outcome.latency is not None:
                facts["latency"] = f"{outcome.latency:.3g} ms"
            if outcome.predicted is not None:
                epochs = len(outcome.curve)
                after = f"after {epochs} epoch{'s' * (epochs > 1)}"
                facts["predicted"] = f"{outcome.predicted:.2f} %, {after}"
    cost = network.cost(block, num_classes=classes, in_channels=channels, image_size=size)
    facts["network"] = (
        f"{network.skeleton}, filters {network.filters}, repeats {network.repeats}, "
        f"{'' if network.connections == 'none' else f'connections {network.connections}, '}"
        f"{size}x{size} images"
    )
    facts["parameters"] = f"{cost.parameters:,}"
    facts["multiply-accumulates"] = f"{cost.macs:,}"
    return facts


def print_best(directory: Path, top: int) -> None:
    """Print a search's best `top` blocks, and what there is to doubt about them."""
    history = read_search(directory)
    rows = best_table(history.best(top))
    if not rows:
        print(history.why_none())
        return
    # what 80 columns hold; codes are too long for a column and follow below
    wide = not rows[0].keys().isdisjoint((BALANCED, LATENCY, RUNG))
    left_out = ["code", *(["iteration", "epsilon"] if wide else [])]
    print_table([{k: v for k, v in row.items() if k not in left_out} for row in rows])
    for row in rows:
        print(f"{row['rank']:>4}  {row['code']}")
    for doubt in doubts_of(history):
        print(f"Note: {doubt}")
