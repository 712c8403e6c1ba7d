"""Which device a training runs on, and how much of its memory it may take."""

import importlib
import platform
import re
import resource
from pathlib import Path

import torch
from joblib import cpu_count

from blockqnn.errors import SettingsError


def resolve(name: str) -> torch.device:
    """The device of a name. `auto` is the first GPU, or the CPU if there is none.

    Raises `SettingsError` if the machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(full_name(name))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise SettingsError(
            f"device is {name!r}: {found} GPUs were found; name one of them, or cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingsError("device is 'mps': this machine has none; use cpu")
    return device


def visible_devices() -> tuple[str, ...]:
    """The names of all GPUs, or of the CPU if there are none."""
    count = torch.cuda.device_count()
    return tuple(f"cuda:{number}" for number in range(count)) or ("cpu",)


def full_name(name: str) -> str:
    """The one name of a device that has several: cuda is cuda:0, and auto is the first device."""
    return {"cuda": "cuda:0", "auto": visible_devices()[0]}.get(name, name)


def usable_cores() -> int:
    """CPU cores that this process may use under its affinity and its container's share."""
    return int(cpu_count())


def device_name(device: torch.device) -> str:
    """The model of a GPU or of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        model = None
    return model.group(1) if model else platform.processor() or platform.machine()


def out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether an error of torch says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    texts = (
        "can't allocate memory",  # torch's CPU allocator
        "not enough memory",  # the same on Windows
        "bad_alloc",  # C++
        "STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN
        "could not create a primitive",  # oneDNN, short of memory for its scratch space
        "could not execute a primitive",
    )
    return any(text in str(error) for text in texts)


def limit_memory(device: torch.device, share: int) -> None:
    """Let this process take at most one `share`-th of the memory that is free now.

    A training that wants more gets an error, which becomes an outcome. Without the limit the system
    would kill it, which would look like any other crash. Works for CPUs on Linux alone.
    """
    free = _free_memory()
    if device.type != "cpu" or free is None:
        return
    # a training imports timm, and torch much of itself for the first optimizer: an import that
    # runs out of memory halfway would break every later training too
    for name in ("data", "loss", "optim", "scheduler", "utils"):
        importlib.import_module(f"timm.{name}")
    torch.optim.SGD([torch.zeros(1)])
    limit = _proc_bytes("self/status", "VmData") + int(0.9 * free) // share
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _free_memory() -> int | None:
    """Bytes that new processes can take, of the machine or of the container, whichever is less."""
    try:
        free = _proc_bytes("meminfo", "MemAvailable")
    except (OSError, LookupError):  # not Linux, or a very old one
        return None
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, used = (
                int((Path("/sys/fs/cgroup") / name).read_text()) for name in (limit, usage)
            )
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
        free = min(free, most - used)
    return free


def _proc_bytes(file: str, name: str) -> int:
    """A value in bytes of a file below /proc, which has it in kB. Raises OSError, LookupError."""
    for line in (Path("/proc") / file).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)
