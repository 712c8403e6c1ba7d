"""The search: ask for a candidate, tell its outcome, and the journal from which it goes on.

It may import everything of the package but the workers. `Search` is imported when it is first
asked for, so that the journal can be read without torch.
"""

from typing import TYPE_CHECKING, Any

from blockqnn.search.outcome import Outcome

if TYPE_CHECKING:
    from blockqnn.search.search import Search

__all__ = ["Outcome", "Search"]


def __getattr__(name: str) -> Any:
    if name == "Search":
        from blockqnn.search.search import Search

        return Search
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
