"""Attempts as Prefect tasks: which are worth another one, and which have ended."""

import queue
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar, cast

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import Completed

from blockqnn.errors import SearchError, UserError

P = ParamSpec("P")
K = TypeVar("K")
R = TypeVar("R")
E = TypeVar("E", bound=Exception)


def attempt_task(
    attempt: Callable[P, R],
    name: str,
    *,
    lost: tuple[type[Exception], ...] = (),
    retries: int = 0,
    delays: Sequence[float] = (),
    say: Callable[..., str] | None = None,
) -> Task[P, R]:
    """Return the Prefect task that runs `attempt`, and runs it again after an error in `lost`.

    `name` is the task's name, a dash and an argument of `attempt` in braces, which tells its runs
    apart. There are at most `retries` further attempts, after `delays` seconds; the last delay
    holds from then on. Other errors, a full disk for example, would only come again. Results are
    neither cached nor kept: what was done is in the run's own files. `say`, given what came of an
    attempt and its arguments, makes the words of its state in Prefect. There is no time limit,
    since Prefect cannot interrupt a thread: workers end what takes too long.
    """

    def is_lost(task: Any, run: Any, state: Any) -> bool:
        try:
            state.result(raise_on_failure=True)
        except lost:
            return True
        except Exception:
            return False
        return False

    def run(*arguments: P.args, **named: P.kwargs) -> Any:
        result = attempt(*arguments, **named)
        return (
            result
            if say is None
            else Completed(message=say(result, *arguments, **named), data=result)
        )

    decorate = task(
        name=name.partition("-")[0],
        task_run_name=name,
        retries=retries,
        retry_delay_seconds=list(delays),
        retry_condition_fn=is_lost,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    # with the names of its arguments, which the runs are called by
    return cast(Task[P, R], decorate(wraps(attempt)(run)))


class AttemptQueue(Generic[K, R, E]):
    """Runs attempts in threads of their own and hands them back one by one as they end.

    A key says what an attempt is at. One that raises `lost` is repeated by Prefect first.
    """

    def __init__(
        self,
        attempt: Callable[..., R],
        name: str,
        lost: type[E],
        delays: Sequence[float],
        retries: int | None = None,
        say: Callable[..., str] | None = None,
    ) -> None:
        """`name`, `delays` and `say` are those of `attempt_task`; `retries` None for one after each
        delay.
        """
        retries = len(delays) if retries is None else retries
        self.task = attempt_task(
            attempt, name, lost=(lost,), retries=retries, delays=delays, say=say
        )
        self.running = 0
        self._lost = lost
        self._ended: queue.SimpleQueue[tuple[K, PrefectFuture[R]]] = queue.SimpleQueue()

    def submit(self, key: K, *arguments: Any) -> None:
        """Begin to attempt the task with these arguments; returns at once."""
        future = self.task.submit(*arguments)
        self.running += 1
        future.add_done_callback(lambda done: self._ended.put((key, done)))

    def take(self, timeout: float) -> tuple[K, R | E]:
        """Wait for what ends next; returns its key and its result, or the error that lost it.

        Raises `queue.Empty` after `timeout` seconds, the attempt's own `UserError`, and
        `SearchError` for all that is not the attempt's fault, trouble with Prefect for example.
        """
        key, future = self._ended.get(timeout=timeout)
        self.running -= 1
        try:
            return key, future.result()
        except self._lost as error:
            return key, error
        except UserError:
            raise
        except Exception as error:
            raise SearchError(
                f"{self.task.name} {key} could not be run, and not by its own fault "
                f"({type(error).__name__}: {error}); give the same command again"
            ) from error
