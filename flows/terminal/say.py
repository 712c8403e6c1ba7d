"""Lines for a person, and durations in words."""

import logging


def say(line: str) -> None:
    """A line for whoever reads this flow's output: in Prefect's log, or on a silent one's terminal
    or pipe.
    """
    # only here: which Prefect API is used is settled before Prefect is imported
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        logger = get_run_logger()
    except MissingContextError:
        logger = logging.getLogger("blockqnn")
    if logger.isEnabledFor(logging.INFO):
        logger.info(line)
    else:
        print(line, flush=True)


def clock(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
