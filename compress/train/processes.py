"""One process, or one of several under torchrun; the device it computes on, and the random state of both."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from compress.errors import ConfigError
from compress.system import cpu

_SECONDS_TO_LET_GO = 0.2
"""How long Gloo's threads get to release the last tensors: thousands of times what they take on an idle machine."""


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is, and the device it computes on."""

    rank: int
    world_size: int
    device: torch.device

    def share_of(self, batch_size: int) -> int:
        """How many examples of a batch fall to each process.

        Raises:
            ConfigError: if they cannot be shared out evenly.
        """
        if batch_size % self.world_size:
            raise ConfigError(
                f"batch_size must be a multiple of the number of processes, got {batch_size} for {self.world_size}"
            )
        return batch_size // self.world_size

    def total(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes; the given tensor takes it."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values

    def agree(self, value: int) -> bool:
        """Whether every process has the same ``value``."""
        if self.world_size == 1:
            return True
        extremes = torch.tensor([value, -value], device=self.device)
        distributed.all_reduce(extremes, distributed.ReduceOp.MAX)
        return int(extremes[0]) == -int(extremes[1])

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Give every process what rank 0 has in ``tensors``."""
        if self.world_size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Go on once every process is here."""
        self.agree(0)


def alone(device: torch.device) -> Processes:
    """This process and no other."""
    return Processes(0, 1, device)


def joined(device: torch.device) -> Processes:
    """The processes that torchrun started, as a group; without torchrun this one alone.

    A group that exists already is used; one that does not is made, and stays until the process ends.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return alone(device)
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        # A second group of this process would meet the addresses that the first left with torchrun.
        atexit.register(_leave)
    return Processes(distributed.get_rank(), distributed.get_world_size(), device)


def _leave() -> None:
    """End the group while Python still runs.

    NCCL complains about groups that outlive their process. Gloo's threads outlive the group, since a
    DistributedDataParallel that is gone still holds it, and one that lets go of the last collective's tensors while the
    interpreter ends aborts the process (pytorch/pytorch#190489). They need the GIL for an instant and get it here.
    """
    if distributed.is_initialized():
        distributed.destroy_process_group()
        time.sleep(_SECONDS_TO_LET_GO)


def as_device(name: torch.device | str) -> torch.device:
    """The device of that name.

    Raises:
        ConfigError: if there is none.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as cause:
        raise ConfigError(f"device must be one that this machine has, got {str(name)!r}") from cause
    # "cuda" and "cuda:0" are the same place, and must compare equal.
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def best_device() -> torch.device:
    """This process's CUDA device if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))


def seed_(seed: int, device: torch.device) -> None:
    """Seed the CPU and ``device``, and no other device: only these two are given back afterwards."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16; emulated it is many times slower than float32."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and cpu.has_bfloat16()
