"""The processes that train one network together, data-parallel. torchrun starts them."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from blockqnn.data.feed import Share
from blockqnn.errors import SettingsError


@dataclass(frozen=True)
class Group(Share):
    """The processes that train one network together, and this one's place among them.

    The default is one process that trains alone.
    """

    def sum(self, values: Tensor) -> Tensor:
        """Add up a tensor over all processes, in place, and return it."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def any(self, flags: list[bool], device: torch.device) -> list[bool]:
        """Tell of each flag whether it is true in any process. All get the same answer."""
        if self.world == 1:
            return flags
        counts = torch.tensor(flags, dtype=torch.int32, device=device)
        dist.all_reduce(counts)
        return [bool(count) for count in counts.tolist()]

    def share(self, content: bytes | None, device: torch.device) -> bytes | None:
        """Give every process the content that the first process has."""
        shared = [content]
        if self.world > 1:
            dist.broadcast_object_list(shared, src=0, device=device)
        return shared[0]

    def parallel(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Wrap a network so that its gradients are averaged over the processes, if several."""
        if self.world == 1:
            return network
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=devices)


def join(device: torch.device, meeting: Path | None = None) -> Group:
    """Join the processes that torchrun started. Without torchrun, the group is this process alone.

    Processes on one machine find each other through the file `meeting`, which must not exist yet,
    and their traffic stays on the machine. Without `meeting` the first process opens a port.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Group()
    backend = "nccl" if device.type == "cuda" else "gloo"
    if meeting is None:
        dist.init_process_group(backend)
    else:
        if sys.platform.startswith("linux"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        store = dist.FileStore(str(meeting), world)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=world)
    return Group(dist.get_rank(), dist.get_world_size())


def leave(group: Group) -> None:
    """End the connections between the processes."""
    if group.world > 1:
        dist.destroy_process_group()


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with statistics of batch norm over the images of all processes.

    Raises `SettingsError` on a CPU, which torch's SyncBatchNorm refuses.
    """
    if device.type != "cuda":
        raise SettingsError(
            "recipe.sync_batch_norm is True: processes share the statistics of batch norm on GPUs "
            f"alone, and this training runs on {device.type}; set it to false, or use GPUs"
        )
    synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return synchronised
