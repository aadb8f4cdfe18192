"""Examples in memory as the batches of a workload."""

from __future__ import annotations

import torch
from torch import Tensor

Batches = list[tuple[Tensor, Tensor]]


def train_and_test(inputs: Tensor, targets: Tensor, *, num_test: int, batch_size: int) -> tuple[Batches, Batches]:
    """Examples in a fixed random order, in batches: those to train on, and those to test on, which are the first.

    Args:
        inputs: ``[n, ...]``.
        targets: ``[n, ...]``.
        num_test: how many are to test on.
        batch_size: how many a batch holds; the last one of either part holds what is left.
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))

    def batches(part: Tensor) -> Batches:
        return list(zip(torch.split(inputs[part], batch_size), torch.split(targets[part], batch_size), strict=True))

    return batches(order[num_test:]), batches(order[:num_test])
