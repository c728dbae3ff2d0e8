"""Processes that train one network together, as `torchrun` starts them."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that share every batch.

    Attributes:
        rank: Of this process; 0 alone writes files.
        size: How many there are; 1 without `torchrun`.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: str) -> "ProcessGroup":
        """Join the processes that `torchrun` started, if it did."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
        return cls(dist.get_rank(), size)

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wrap(self, network: nn.Module, *, uses_all: bool) -> nn.Module:
        """The network with its gradients averaged over the processes.

        Args:
            network: Of this process.
            uses_all: Whether every parameter plays a part in every step.
        """
        if self.size == 1:
            return network
        return DistributedDataParallel(network, find_unused_parameters=not uses_all)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the processes."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def broadcast(self, value: float) -> float:
        """The value of rank 0, on every rank."""
        if self.size == 1:
            return value
        message = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(message, src=0)
        return float(message.item())
