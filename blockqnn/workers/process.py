"""Trains candidates on this machine: a long-lived process, `python -m blockqnn.workers.process`.

It knows only `blockqnn`: no Prefect, no MLflow. It speaks JSON lines. The first on standard input
is a `Begin`, answered by `{"ready": true}`; every further one a `CandidateTask`, answered by an
`Answer`. An outcome is on disk before it is answered, so that it survives the death of whoever
asked. When standard input closes, whoever asked is gone, and the process ends at once, in the
middle of a training too.
"""

from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from blockqnn.data import load
from blockqnn.errors import UserError
from blockqnn.params import settings_from_dict
from blockqnn.training.devices import limit_memory, resolve
from blockqnn.workers.attempt import answer, train_and_keep
from blockqnn.workers.lines import serve
from blockqnn.workers.protocol import Begin, CandidateTask


def main() -> None:
    """Serve standard input until it closes."""
    messages: SimpleQueue[Any] = SimpleQueue()
    send = serve(messages.put)
    begin: Begin = messages.get()
    try:
        settings = settings_from_dict(begin["settings"])
        torch.set_num_threads(begin["threads"])
        device = resolve(begin["device"])
        limit_memory(device, begin["share"])
        data = load(settings.data, settings.seed).to(device)
    except (UserError, OSError) as error:
        send({"error": str(error)})
        return
    send({"ready": True})
    while True:
        task: CandidateTask = messages.get()
        place = Path(begin["directory"])
        send(answer(partial(train_and_keep, task, settings, data, place, device)))


if __name__ == "__main__":
    main()
