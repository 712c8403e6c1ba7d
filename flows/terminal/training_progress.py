"""How far final trainings are: live lines on a terminal, a plain one now and then elsewhere."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import TaskID

from flows.terminal.say import LiveProgress, clock

PLAIN_SECONDS = 30.0
"""Seconds between two plain lines about the same training."""


class TrainingProgress(LiveProgress):
    """Shows each running training's epoch, step, accuracy, images a second and time left."""

    def __init__(self, name: str, total: int) -> None:
        """`total` counts the trainings of the run `name`, those done before included."""
        super().__init__()
        self._name = name
        self._total = total
        self._done = 0
        self._running: dict[Path, _Watched] = {}

    def begin(self, directory: Path) -> None:
        """Show a training that was started."""
        watched = _Watched(directory)
        if self._bars is not None:
            watched.bar = self._bars.add_task(directory.name[:24], total=None, text="starting")
        self._running[directory] = watched

    def end(self, directory: Path, text: str) -> None:
        """Say what a training came to, in `text`; it need not have begun."""
        self._done += 1
        watched = self._running.pop(directory, None)
        if self._bars is not None and watched is not None and watched.bar is not None:
            self._bars.remove_task(watched.bar)
        self._say(f"{self._name} {self._done}/{self._total}: {directory.name}: {text}")

    def update(self) -> bool:
        """Show how far the trainings are; returns whether an epoch has ended since last time."""
        news = False
        for watched in self._running.values():
            now = watched.read()
            if now is None:
                continue
            news = news or now["ended"]
            if self._bars is not None and watched.bar is not None:
                done, total = now["steps_done"], now["steps_total"]
                self._bars.update(watched.bar, completed=done, total=total, text=_text(now))
            elif now["ended"] and watched.may_speak():
                self._say(f"{self._name}: {watched.directory.name}: {_text(now)}")
        return news


class _Watched:
    """A running training's progress.json, and what was read of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bar: TaskID | None = None
        self._epochs = -1
        self._seen: tuple[int, float] | None = None
        self._spoken = float("-inf")
        self._stamp = self._mark()

    def read(self) -> dict[str, Any] | None:
        """The state that the training last wrote, in plain values; None when it is not new."""
        if (stamp := self._mark()) == self._stamp:
            return None
        self._stamp = stamp
        try:
            found = json.loads((self.directory / "progress.json").read_text(encoding="utf-8"))
            curve, steps = found["curve"], int(found["steps"])
            epochs, moment = int(found["epochs"]), float(found["time"])
            done = min(int(found["epoch"]) * steps + int(found["step"]), epochs * steps)
        except (OSError, ValueError, KeyError, TypeError):  # progress is for the eye alone
            return None
        ended = len(curve) > self._epochs >= 0
        self._epochs = len(curve)
        if self._seen is None:
            self._seen = (done, moment)
        rate = (done - self._seen[0]) / max(moment - self._seen[1], 1e-9)
        return {
            "epoch": min(len(curve) + 1, epochs),
            "epochs": epochs,
            "step": int(found["step"]),
            "steps": steps,
            "steps_done": done,
            "steps_total": epochs * steps,
            "last": curve[-1] if curve else {},
            "left": (epochs * steps - done) / rate if rate > 0 else None,
            "ended": ended,
        }

    def may_speak(self) -> bool:
        """Whether the last plain line is `PLAIN_SECONDS` ago; if so, counts the next as said."""
        now = time.monotonic()
        if now - self._spoken < PLAIN_SECONDS:
            return False
        self._spoken = now
        return True

    def _mark(self) -> tuple[int, int] | None:
        try:
            status = (self.directory / "progress.json").stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns


def _text(now: Mapping[str, Any]) -> str:
    last = now["last"]
    words = [f"epoch {now['epoch']}/{now['epochs']} step {now['step']}/{now['steps']}"]
    if (accuracy := last.get("accuracy")) is not None:
        words.append(f"accuracy {accuracy:.2f} %")
    elif (accuracy := last.get("train_accuracy")) is not None:
        words.append(f"train accuracy {accuracy:.2f} %")
    if (rate := last.get("images_per_second")) is not None:
        words.append(f"{rate:,.0f} images/s")
    if now["left"] is not None:
        words.append(f"{clock(now['left'])} left")
    return ", ".join(words)
