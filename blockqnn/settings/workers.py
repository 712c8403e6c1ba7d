"""Settings of who trains candidates and where, the section `workers` of params.yaml."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Discriminator

from blockqnn.settings.checks import Section


@dataclass(frozen=True, kw_only=True)
class InlineSettings(Section, section="workers"):
    """Candidates are trained one after the other in the flow's own process."""

    kind: Literal["inline"] = "inline"
    device: str = "auto"
    """Device of the trainings: cpu, cuda, cuda:1, mps, or auto, the first GPU, else the CPU."""
    threads: int = 1
    """CPU threads of torch in this process."""

    def __post_init__(self) -> None:
        self.require_least(1, "threads")
        self.require_devices("device", self.device)

    @property
    def typical(self) -> tuple[str, int]:
        """The device of a candidate's training, and its CPU threads."""
        return self.device, self.threads


@dataclass(frozen=True, kw_only=True)
class LocalSettings(Section, section="workers"):
    """Processes of this machine train candidates, each with its own device or threads."""

    kind: Literal["local"] = "local"
    count: int | None = None
    """Worker processes; null means one for each GPU, else one for each CPU core."""
    devices: tuple[str, ...] = ()
    """Devices of the processes in turn, such as [cuda:0]; empty means every GPU, else the CPU."""
    threads: int = 1
    """CPU threads of torch in each process."""
    timeout: float = 24 * 3600.0
    """Seconds after which a training is stopped and tried again from its last checkpoint."""
    retries: int = 6
    """Further attempts at a candidate whose worker died, did not start, or ran out of time."""

    def __post_init__(self) -> None:
        self.require_least(1, "count", "threads")
        self.require_least(0, "retries")
        self.require_seconds("timeout")
        self.require_devices("devices", *self.devices)

    @property
    def typical(self) -> tuple[str, int]:
        """The device of a candidate's training, the first of all, and its CPU threads."""
        return (*self.devices, "auto")[0], self.threads


@dataclass(frozen=True, kw_only=True)
class RaySettings(Section, section="workers"):
    """Candidates are trained as Ray tasks, on a cluster or on this machine."""

    kind: Literal["ray"] = "ray"
    address: str | None = None
    """HOST:PORT of the head of a Ray cluster, or auto for the cluster that this machine belongs to;
    null starts a Ray on this machine."""
    count: int | None = None
    """Candidates in training at one time, a number if an autoscaler adds nodes; null means as many
    as the cluster has room for."""
    gpus_per_candidate: float | None = None
    """1 for a GPU a candidate, or a fraction such as 0.25; null means 1 if the cluster has any."""
    cpus_per_candidate: int = 1
    """CPU cores for one candidate, and its threads of torch."""
    share_data: bool = True
    """Send the images to each node once, through Ray's object store; if false, every node reads
    them from data.root."""
    checkpoints: str | None = None
    """Directory that every node sees, or URL such as s3://bucket/blockqnn, of the candidates'
    checkpoints; null means the search's own directory."""
    timeout: float = 24 * 3600.0
    """Seconds after which a training is stopped and tried again from its last checkpoint."""
    retries: int = 6
    """Further attempts if a worker dies or its time runs out; a lost node costs none."""
    patience: float = 600.0
    """Seconds to wait for a cluster that does not answer any more."""

    def __post_init__(self) -> None:
        self.require_least(1, "count", "cpus_per_candidate")
        gpus = self.gpus_per_candidate
        fits = gpus is None or 0 <= gpus <= 1
        remedy = "give 1 or a fraction of one GPU, 0 for CPUs, or null: a candidate trains on one"
        self.require("gpus_per_candidate", fits, remedy)
        self.require_least(0, "retries")
        self.require_seconds("timeout", "patience")
        self.require("checkpoints", self.checkpoints != "", "give a directory, a URL, or null")
        known = self.address is None or re.fullmatch(r"auto|[^/\s]+:\d+", self.address)
        self.require("address", bool(known), "give HOST:PORT, auto, or null")

    @property
    def typical(self) -> tuple[str, int]:
        """The device of a candidate's training, as this machine has one, and its CPU threads."""
        return "cpu" if self.gpus_per_candidate == 0 else "auto", self.cpus_per_candidate


WorkerSettings = Annotated[InlineSettings | LocalSettings | RaySettings, Discriminator("kind")]
