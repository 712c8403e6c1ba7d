"""Candidates trained in the search's own process, one after the other."""

from pathlib import Path

import torch

from blockqnn.data import load
from blockqnn.errors import UserError
from blockqnn.search.outcome import Outcome
from blockqnn.settings import InlineSettings, Settings
from blockqnn.training.devices import resolve
from blockqnn.workers.attempt import train_and_keep
from blockqnn.workers.protocol import CandidateTask, WorkerDied, Workers


class InlineWorker(Workers):
    """Trains in the calling thread."""

    slots = 1

    def __init__(self, settings: Settings, workers: InlineSettings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._device = resolve(workers.device)
        torch.set_num_threads(workers.threads)
        self._data = load(settings.data, settings.seed).to(self._device)

    def train(self, task: CandidateTask) -> Outcome:
        """Train a candidate here and now; no other is ever in training."""
        try:
            alone: CandidateTask = {**task, "alone": True}
            return train_and_keep(alone, self._settings, self._data, self._directory, self._device)
        except UserError:
            raise
        except Exception as error:  # what would have killed a process
            raise WorkerDied(f"{type(error).__name__}: {error}") from error
