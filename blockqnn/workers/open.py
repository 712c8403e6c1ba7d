"""The workers that the settings name."""

from pathlib import Path

from blockqnn.settings import LocalSettings, RaySettings, Settings
from blockqnn.workers.inline import InlineWorker
from blockqnn.workers.local import LocalWorkers
from blockqnn.workers.protocol import Workers


def open_workers(settings: Settings, directory: Path) -> Workers:
    """The workers that the settings name, for the search in `directory`."""
    workers = settings.workers
    if isinstance(workers, LocalSettings):
        return LocalWorkers(settings, workers, directory)
    if isinstance(workers, RaySettings):
        from blockqnn.workers.ray_workers import RayWorkers

        return RayWorkers(settings, workers, directory)
    return InlineWorker(settings, workers, directory)
