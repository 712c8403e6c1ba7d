"""From image files to batches on the device. `streamed` reads images while a network trains.

Imports of this package the settings, storage, seeds and errors; importing it imports torch.
"""

from blockqnn.data.dataset import Dataset, ImageSet, load
from blockqnn.data.feed import Batch, Feed
from blockqnn.data.memory_feed import MemoryFeed

__all__ = ["Batch", "Dataset", "Feed", "ImageSet", "MemoryFeed", "load"]
