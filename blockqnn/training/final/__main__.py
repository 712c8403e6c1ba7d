"""One final training as a process, `python -m blockqnn.training.final DIRECTORY`.

torchrun starts it for several GPUs or machines. What to train stands in DIRECTORY/job.json; the
state lies beside it, and at the end the weights and result.json. Started again after any end, it
goes on or finds itself done. Exit status: 0 done, 75 stopped with its state saved (SIGTERM, Ctrl-C,
or, with --leash, standard input closed), 1 or 2 with one sentence on standard error.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from blockqnn.errors import SettingsError, UserError
from blockqnn.training.final.run import STOPPED, train
from blockqnn.training.trainer import Interrupted


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the job in a directory; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m blockqnn.training.final")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--device", nargs="+", default=["auto"], help="one for each process")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of torch")
    parser.add_argument("--leash", action="store_true", help="stop when standard input closes")
    parser.add_argument("--meeting", type=Path, help="a file where processes of torchrun meet")
    options = parser.parse_args(arguments)
    stop = _stop_event(options.leash)
    try:
        train(options.directory, options.device, options.threads, stop, options.meeting)
    except Interrupted:
        return STOPPED
    except UserError as error:
        print(f"blockqnn: {error}", file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    except OSError as error:
        print(f"blockqnn: {options.directory}: {error}; nothing is lost", file=sys.stderr)
        return 1
    return 0


def _stop_event(leash: bool) -> threading.Event:
    """An event that SIGTERM, Ctrl-C and, with `leash`, the end of standard input set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if leash:

        def follow() -> None:
            while os.read(0, 1024):
                pass
            stop.set()

        threading.Thread(target=follow, daemon=True).start()
    return stop


if __name__ == "__main__":
    sys.exit(main())
