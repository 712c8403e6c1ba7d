"""What a person should doubt about a search, in sentences; nothing where there is no reason to."""

import math

from blockqnn.search.history import History
from blockqnn.search.records import Result, Task

UNBALANCED = 2.0
"""How many times its fair share the most frequent class has, or how many times less than a fair
share is left to the others, where a search is warned about it."""

RARE = 5.0
"""How many times less than its fair share a class has where a search is warned about it."""

ERRORS = 2.0
"""Standard errors of an accuracy that chance explains."""


def doubts_of(history: History) -> list[str]:
    """Return what a person should know before trusting the best block of a search."""
    best = history.best(1)
    found = [
        unbalanced(history.task, history.settings.reward.metric),
        _near_chance(best[0], history.task) if best else "",
        _far_below(history, best[0]) if best else "",
    ]
    return [sentence for sentence in found if sentence]


def unbalanced(task: Task, metric: str) -> str:
    """A sentence on classes of unequal size where the metric hardly sees the rare ones, or ''."""
    fair, chance, smallest = 100.0 / task.num_classes, task.chance, task.smallest_class
    frequent = chance >= UNBALANCED * fair or (100.0 - chance) * UNBALANCED <= 100.0 - fair
    rare = smallest is not None and smallest * RARE <= fair
    if metric != "accuracy" or not (frequent or rare):
        return ""
    shares = f"the most frequent of {task.num_classes} classes has {chance:.1f} % of the images"
    shares += "" if smallest is None else f", the rarest {smallest:.1f} %"
    return (
        f"Accuracy hardly sees rare classes, and {shares}: begin a search with "
        "reward.metric=balanced_accuracy, which counts all classes alike."
    )


def _near_chance(best: Result, task: Task) -> str:
    accuracy = best.outcome.expected or 0.0
    least = task.chance + ERRORS * _error(task.chance, task)
    if accuracy > least:
        return ""
    return (
        f"The best block's accuracy, {accuracy:.2f} %, is no better than chance, {task.chance:.2f} "
        f"%, as far as {task.held_out_images:,} held-out images tell: train longer "
        "(recipe.epochs), on more images, or at another rate, before you trust the ranking."
    )


def _far_below(history: History, best: Result) -> str:
    trained = (r for r in history.results if r.outcome.kind == "trained" and r.same_as is None)
    top = max(trained, key=lambda result: result.outcome.expected or 0.0)
    high, low = top.outcome.expected or 0.0, best.outcome.expected or 0.0
    task = history.task
    if high - low <= ERRORS * math.hypot(_error(high, task), _error(low, task)):
        return ""
    return (
        f"Candidate {top.candidate.number} has {high:.2f} % of the held-out images right, the best "
        f"block by reward {low:.2f} %: the reward pays that much for lower cost. If accuracy is "
        "what you want, search with reward.objective=accuracy and a budget."
    )


def _error(accuracy: float, task: Task) -> float:
    """Standard error of an accuracy, both in percent."""
    return math.sqrt(max(accuracy, 1.0) * max(100.0 - accuracy, 1.0) / task.held_out_images)
