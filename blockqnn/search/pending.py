"""The candidates of a search that are proposed and whose outcomes are not in the journal yet."""

from collections import deque
from dataclasses import dataclass

from blockqnn.cost import Cost
from blockqnn.search.outcome import Outcome
from blockqnn.search.records import Candidate


@dataclass(slots=True)
class Waiting:
    """A candidate whose outcome is not in the journal yet, and what is known of it."""

    candidate: Candidate
    cost: Cost
    outcome: Outcome | None = None
    """The outcome to record: told, clear from the cost, or shared. None while it is not known."""
    same_as: int | None = None
    """Number of the recorded candidate whose training this one shares, None for none."""


class Pending:
    """The waiting candidates of a search, in ascending order of their numbers.

    Between any two calls this holds:

    - Candidates with the same work share one training: only the first of them is handed out by
      `next_to_train`, only once, and only while its outcome is not known.
    - When one of them is recorded, the others have its outcome and name it in `same_as`.
    - `ready` has candidates with a known outcome alone, and never two that were not recorded before
      and have the same work. In turn, it has none whose number is above one whose outcome is not
      known.
    """

    def __init__(self, in_turn: bool = False) -> None:
        """Nothing waits. `in_turn` records outcomes in the order of numbers, as sync mode does."""
        self._in_turn = in_turn
        self._waiting: dict[int, Waiting] = {}
        self._by_key: dict[str, list[int]] = {}
        self._known: set[int] = set()
        self._untrained: deque[Waiting] = deque()

    @property
    def keys(self) -> dict[str, list[int]]:
        """Numbers of the waiting candidates by their work, a first training's being the key."""
        return self._by_key

    def get(self, number: int) -> Waiting | None:
        """The candidate with that number, None when it does not wait."""
        return self._waiting.get(number)

    def add(self, waiting: Waiting) -> None:
        """Take in a candidate that was proposed after all others."""
        number = waiting.candidate.number
        self._waiting[number] = waiting
        sharing = self._by_key.setdefault(waiting.candidate.work, [])
        sharing.append(number)
        if waiting.outcome is not None:
            self._known.add(number)
        elif len(sharing) == 1:
            self._untrained.append(waiting)

    def next_to_train(self) -> Candidate | None:
        """The first candidate that has to be trained and was not handed out, None for none."""
        while self._untrained:
            waiting = self._untrained.popleft()
            if waiting.outcome is None:
                return waiting.candidate
        return None

    def tell(self, number: int, outcome: Outcome) -> None:
        """Give a waiting candidate the outcome of its training."""
        self._waiting[number].outcome = outcome
        self._known.add(number)

    def take_back(self, number: int) -> None:
        """Forget the outcome told of a candidate, unless it is recorded."""
        if number in self._waiting:
            self._waiting[number].outcome = None
            self._known.discard(number)

    def ready(self) -> list[Waiting]:
        """The candidates whose outcomes may go to the journal now, in one write."""
        found: list[Waiting] = []
        keys: set[str] = set()
        for number in self._waiting if self._in_turn else sorted(self._known):
            waiting = self._waiting[number]
            key = waiting.candidate.work
            if waiting.outcome is not None and (waiting.same_as is not None or key not in keys):
                found.append(waiting)
                keys.add(key)
            elif self._in_turn:
                break
        return found

    def recorded(self, waiting: Waiting) -> None:
        """Let go of a candidate whose outcome is in the journal; the same work shares it."""
        number, key = waiting.candidate.number, waiting.candidate.work
        del self._waiting[number]
        self._known.discard(number)
        sharing = self._by_key[key]
        sharing.remove(number)
        self._known.update(sharing)
        for other in (self._waiting[other] for other in sharing):
            other.outcome = waiting.outcome
            other.same_as = number if waiting.same_as is None else waiting.same_as
        if not sharing:
            del self._by_key[key]
