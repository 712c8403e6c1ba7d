"""Candidates trained in the search's own process, one after the other."""

from pathlib import Path

import torch

from blockqnn.data import load
from blockqnn.errors import UserError
from blockqnn.search.candidate_files import candidate_directory
from blockqnn.search.outcome import Outcome
from blockqnn.settings import InlineSettings, Settings
from blockqnn.space import Block
from blockqnn.training.devices import resolve
from blockqnn.workers.attempt import read_rule, read_work, train_and_keep
from blockqnn.workers.protocol import FIRST, Rule, Work, WorkerDied, Workers


class InlineWorker(Workers):
    """Trains in the calling thread."""

    slots = 1

    def __init__(self, settings: Settings, workers: InlineSettings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._device = resolve(workers.device)
        torch.set_num_threads(workers.threads)
        self._data = load(settings.data, settings.seed).to(self._device)

    def train(
        self,
        number: int,
        code: str,
        alone: bool = False,
        rule: Rule | None = None,
        work: Work = FIRST,
    ) -> Outcome:
        """Train a candidate here and now; no other is ever in training."""
        block = Block.parse(code, self._settings.space.max_index)
        settings, further = read_work(work, self._settings, self._directory)
        directory = candidate_directory(self._directory, number)
        job = (block, settings, self._data, directory, self._device)
        try:
            return train_and_keep(*job, rule=read_rule(rule), further=further)
        except UserError:
            raise
        except Exception as error:  # what would have killed a process
            raise WorkerDied(f"{type(error).__name__}: {error}") from error
