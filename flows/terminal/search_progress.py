"""How far a search is: a live line on a terminal, a plain one an iteration elsewhere."""

import time
from statistics import fmean
from typing import Any

from blockqnn.search.history import History
from evaluation.stages.doubts import unbalanced
from flows.terminal.say import LiveProgress, clock

Row = dict[str, Any]


class Progress(LiveProgress):
    """Shows iteration, epsilon, the best block's accuracy and reward, the mean reward of the last
    iteration, candidates an hour and time left.
    """

    def __init__(self, name: str, history: History) -> None:
        """Begin to show the search `name` where its history is now."""
        super().__init__()
        self._name = name
        self._begun = time.monotonic()
        self._at_start = len(history.results)
        self._iteration = history.iteration
        if self._bars is not None:
            self._bar = self._bars.add_task(f"[bold]{name}", total=history.total, text="")
        if doubt := unbalanced(history.task, history.settings.reward.metric):
            self._say(f"{name}: {doubt}")
        if self._at_start:
            self._say(f"{name}: resumed with {self._at_start} of {history.total} candidates done")
        self.update(history)

    def row(self, history: History) -> Row:
        """The state of the search in plain values by column, for a table."""
        done = len(history.results)
        seconds = max(time.monotonic() - self._begun, 1e-9)
        rate = (done - self._at_start) / seconds
        best = history.best(1)
        last = history.results[-history.settings.batch :]
        measured = [r.reward for r in last if r.outcome.kind != "stopped"]
        return {
            "iteration": f"{min(history.iteration + 1, history.iterations)}/{history.iterations}",
            "epsilon": history.epsilon,
            "candidates": f"{done}/{history.total}",
            "best accuracy": _percent(best[0].outcome.expected) if best else None,
            "its reward": round(best[0].reward, 2) if best else None,
            "mean reward": round(fmean(measured), 2) if measured else None,
            "candidates an hour": round(3600 * rate),
            "time left": clock((history.total - done) / rate) if rate else "?",
        }

    def update(self, history: History) -> None:
        """Show the state: at once on a terminal, once an iteration elsewhere."""
        if self._bars is not None:
            row = self.row(history)
            text = (  # 80 columns hold it
                f"{row['iteration']} ε {row['epsilon']} best {row['best accuracy'] or '-'} "
                f"reward {_or_dash(row['its reward'])}, mean {_or_dash(row['mean reward'])} "
                f"{row['candidates an hour']}/h {row['time left']}"
            )
            self._bars.update(self._bar, completed=len(history.results), text=text)
        elif history.iteration != self._iteration:
            self._iteration = history.iteration
            line = ", ".join(f"{name} {value}" for name, value in self.row(history).items())
            self._say(f"{self._name}: {line}")


def _or_dash(reward: float | None) -> str:
    return "-" if reward is None else str(reward)


def _percent(accuracy: float | None) -> str | None:
    return None if accuracy is None else f"{accuracy:.2f} %"
