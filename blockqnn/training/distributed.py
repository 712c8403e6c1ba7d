"""Several processes that train one network, data-parallel: started by torchrun, joined here."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from blockqnn.data.feed import Share


@dataclass(frozen=True)
class Group(Share):
    """The processes of a training; one alone by default."""

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def any(self, flags: list[bool], device: torch.device) -> list[bool]:
        """Whether any process says so, flag by flag; each gets the same answer."""
        if self.world == 1:
            return flags
        counts = torch.tensor(flags, dtype=torch.int32, device=device)
        dist.all_reduce(counts)
        return [bool(count) for count in counts.tolist()]

    def share(self, content: bytes | None, device: torch.device) -> bytes | None:
        """What the first process has, for all."""
        if self.world == 1:
            return content
        length = torch.tensor([-1 if content is None else len(content)], device=device)
        dist.broadcast(length, 0)
        if int(length) < 0:
            return None
        if content is None:
            buffer = torch.empty(int(length), dtype=torch.uint8, device=device)
        else:
            buffer = torch.frombuffer(bytearray(content), dtype=torch.uint8).to(device)
        dist.broadcast(buffer, 0)
        return buffer.cpu().numpy().tobytes()

    def parallel(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with gradients averaged over the processes; itself for one."""
        if self.world == 1:
            return network
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=devices)

    def wait(self) -> None:
        """Until all processes have got here."""
        if self.world > 1:
            dist.barrier()


def started_by_torchrun() -> bool:
    """Whether this process is one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def join(device: torch.device, meeting: Path | None = None) -> Group:
    """The group that torchrun made; one process alone without it.

    The processes find each other through the file `meeting`, which is not there yet, where all are
    on one machine, and then talk within it; else through a port of the first one.
    """
    if not started_by_torchrun():
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
    """End the group."""
    if group.world > 1:
        dist.destroy_process_group()


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with batch norm over all processes: torch's own on GPUs, ours elsewhere."""
    if device.type == "cuda":
        synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return synchronised
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _SyncBatchNorm2d  # keeps names, weights and statistics
    return network


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class _SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over all processes on a CPU, which torch's SyncBatchNorm refuses."""

    def forward(self, images: Tensor) -> Tensor:
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(images)
        values = images.float()
        count = torch.tensor(float(values.numel() // values.shape[1]))
        dist.all_reduce(count)
        total: Tensor = _SumOverProcesses.apply(values.sum((0, 2, 3)))
        mean = total / count
        centred = values - mean[:, None, None]
        squares: Tensor = _SumOverProcesses.apply(centred.square().sum((0, 2, 3)))
        variance = squares / count
        with torch.no_grad():
            rate = self.momentum or 0.1
            unbiased = variance * (count / (count - 1))
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(unbiased, rate)
        scale = (self.weight * torch.rsqrt(variance + self.eps))[:, None, None]
        return (centred * scale + self.bias[:, None, None]).to(images.dtype)
