"""What a search or final trainings will take on this machine: time, memory and disk.

Everything below it is used as it is: a search is rehearsed with made-up accuracies, its workers
train a few candidates for some seconds, and networks of final trainings take a few steps.
"""

from blockqnn.estimate.needs import Needs
from blockqnn.estimate.plan import estimate_plan
from blockqnn.estimate.search import estimate_search

__all__ = ["Needs", "estimate_plan", "estimate_search"]
