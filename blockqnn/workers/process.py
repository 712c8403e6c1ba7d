"""What trains candidates on this machine: a long-lived process, `python -m
blockqnn.workers.process`.

It knows only `blockqnn`: no Prefect, no MLflow. It speaks JSON lines. The first on
standard input is `{"settings": {...}, "directory": "runs/x", "device": "cpu", "threads": 1}`; every
further one a candidate, `{"number": 3, "code": "...", "alone": false, "rule": null}`, the rule that
of `blockqnn.search.stopping`. It answers `{"ready": true}`, then `{"outcome": {...}}`, `{"lost":
"..."}` for an attempt that came to nothing, or `{"error": "..."}` for what the user has to mend (a
full disk, missing data). An outcome is on disk before it is answered, so that it survives the death
of whoever asked. When standard input closes, whoever asked is gone, and the worker ends at once, in
the middle of a training too.
"""

from functools import partial
from pathlib import Path

import torch

from blockqnn.data import load
from blockqnn.errors import UserError
from blockqnn.params import settings_from_dict
from blockqnn.search.candidate_files import (
    candidate_directory,
)
from blockqnn.space import Block
from blockqnn.training.devices import limit_memory, resolve
from blockqnn.workers.attempt import answer, read_rule, train_and_keep
from blockqnn.workers.lines import served


def main() -> None:
    """Serve standard input until it closes."""
    messages, send = served()
    begin = messages.get()
    try:
        settings = settings_from_dict(begin["settings"])
        torch.set_num_threads(begin["threads"])
        device = resolve(begin["device"])
        limit_memory(device, begin.get("share", 1))
        data = load(settings.data, settings.seed).to(device)
    except (UserError, OSError) as error:
        send({"error": str(error)})
        return
    send({"ready": True})
    while True:
        task = messages.get()
        block = Block.parse(task["code"], settings.space.max_index)
        directory = candidate_directory(Path(begin["directory"]), task["number"])
        train = partial(train_and_keep, alone=task["alone"], rule=read_rule(task))
        send(answer(partial(train, block, settings, data, directory, device)))


if __name__ == "__main__":
    main()
