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
    """The device of a name; auto is the first GPU, else the CPU. Raises `SettingsError` when
    absent.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise SettingsError(
            f"device is {name!r}: {found} GPUs were found; name one of them, or cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingsError("device is 'mps': this machine has none; use cpu")
    return device


def visible_devices() -> tuple[str, ...]:
    """Every GPU, else the CPU."""
    count = torch.cuda.device_count()
    return tuple(f"cuda:{number}" for number in range(count)) or ("cpu",)


def usable_cores() -> int:
    """CPU cores that this process may use: affinity and a container's share counted."""
    return int(cpu_count())


def device_name(device: torch.device) -> str:
    """The model of a GPU, else of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        model = None
    return model.group(1) if model else platform.processor() or platform.machine()


def out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether an error of torch means that memory ran out."""
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
    """Let a CPU process take at most one `share`-th of the memory free now, where Linux can hold it
    to that.

    A training beyond it gets an error, which becomes an outcome, instead of a kill by the system,
    which would look like any other crash.
    """
    free = _free_memory()
    if device.type != "cpu" or free is None:
        return
    # a training imports timm, and torch much of itself for the first optimizer: an import that
    # runs out of memory halfway would break every later training too
    for name in ("data", "loss", "optim", "scheduler", "utils"):
        importlib.import_module(f"timm.{name}")
    torch.optim.SGD([torch.zeros(1)])
    in_use = _status_bytes("VmData")
    limit = in_use + int(0.9 * free) // share
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _free_memory() -> int | None:
    """Bytes that new processes can take, of the machine or of the container, whichever is less."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    free = values.get("MemAvailable")
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            cap = int((Path("/sys/fs/cgroup") / limit).read_text())
            left = cap - int((Path("/sys/fs/cgroup") / usage).read_text())
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
        free = left if free is None else min(free, left)
    return free


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0
