"""The Prefect task around one attempt, and which errors are worth another attempt."""

from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

P = ParamSpec("P")
R = TypeVar("R")


def attempt_task(
    attempt: Callable[P, R],
    name: str,
    *,
    lost: tuple[type[Exception], ...] = (),
    retries: int = 0,
    delays: Sequence[float] = (),
) -> Task[P, R]:
    """Return the Prefect task that runs `attempt`, and runs it again after an error in `lost`.

    `name` is the name of its runs, with the arguments of `attempt` in braces. There are at most
    `retries` further attempts, after `delays` seconds; the last delay holds from then on. Other
    errors, a full disk for example, would only come again. Results are neither cached nor kept:
    what was done is in the run's own files. There is no time limit, since Prefect cannot interrupt
    a thread: workers end what takes too long.
    """

    def is_lost(task: Any, run: Any, state: Any) -> bool:
        try:
            state.result(raise_on_failure=True)
        except lost:
            return True
        except Exception:
            return False
        return False

    decorate = task(
        task_run_name=name,
        retries=retries,
        retry_delay_seconds=list(delays),
        retry_condition_fn=is_lost,
        cache_policy=NO_CACHE,
        persist_result=False,
    )
    return decorate(attempt)
