"""Channels taken out of layers one after the other, each time the one whose loss the others make up for best.

Source: Hassibi and Stork, "Second Order Derivatives for Network Pruning: Optimal Brain Surgeon", NeurIPS 1992; for a
layer's squared error and blocks of weights Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# In units of the mean square of an input: inputs that are almost copies of others have no inverse without it.
_RIDGE = 1e-2
# Of a layer's inputs, how many must be left for their matrix to stay as large as it is.
_COMPACT = 0.75


@dataclass(kw_only=True, eq=False)
class Consumer:
    """A layer, or one group of it, that takes in channels some of which go.

    Attributes:
        inverse: ``[in, in]``, of the Gram matrix of its inputs.
        weight: ``[out, in]``.
        scale: the variance of the whole layer's outputs.
        owners: ``[in]``, the channel that each input is of; -1 for inputs that stay.
        errors: ``[channels]``, what the outputs' squared error grows by if a channel goes and the rest is fitted again.
    """

    inverse: Tensor
    weight: Tensor
    scale: float
    owners: Tensor
    errors: Tensor = field(default_factory=lambda: torch.empty(0))

    def look_(self, count: int) -> None:
        """Work out ``errors`` for ``count`` channels."""
        self.errors = self.weight.new_zeros(count)
        for channels, columns in _by_channel(self.owners):
            block = self.inverse[columns[:, :, None], columns[:, None, :]]
            own = self.weight[:, columns].permute(1, 2, 0)
            # tr(w (inverse of the block) w'), OBC equation 7.
            missed = (torch.linalg.solve(block, own) * own).sum((1, 2)) / self.scale
            self.errors.index_add_(0, channels, missed)

    def remove_(self, channel: int) -> None:
        """Take a channel out, and fit the rest of the weights to what the outputs were."""
        gone = (self.owners == channel).nonzero().flatten()
        across = self.inverse[:, gone]
        step = torch.linalg.solve(self.inverse[gone][:, gone], across.T)
        self.weight -= self.weight[:, gone] @ step
        self.inverse -= across @ step
        self.owners[gone] = _GONE
        left = (self.owners != _GONE).nonzero().flatten()
        if len(left) < _COMPACT * len(self.owners):
            self.weight, self.owners = self.weight[:, left], self.owners[left]
            self.inverse = self.inverse[left][:, left]


_GONE = -2


def consumer(gram: Tensor, weight: Tensor, scale: float, owners: Tensor, *, has_bias: bool) -> Consumer:
    """A layer as it is before any channel goes.

    Args:
        gram: ``[in + 1, in + 1]``, of its inputs and, last, of an input that is always 1.
        weight: ``[out, in]``.
        scale: see :class:`Consumer`.
        owners: ``[in]``, likewise.
        has_bias: whether it has a bias, which is fitted again too.
    """
    inputs = len(owners)
    matrix = gram.clone() if has_bias else gram[:-1, :-1].clone()
    share = _RIDGE * gram.diagonal()[:inputs].mean()
    # The bias is free, and where all inputs are dead nothing has a square.
    matrix.diagonal()[:inputs] += share.clamp(min=torch.finfo(torch.float64).tiny ** 0.5)
    if has_bias:
        matrix[-1, -1].clamp_(min=1)
        weight = torch.cat([weight, weight.new_zeros(len(weight), 1)], dim=1)
        owners = torch.cat([owners, owners.new_tensor([-1])])
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    return Consumer(inverse=inverse, weight=weight.clone(), scale=scale, owners=owners.clone())


def eliminated(consumers: Sequence[Consumer], cell_of: Tensor) -> Tensor:
    """``[channels]``: by how much each adds to the error, in the order in which channels go.

    All cells lose the same fraction at any time: the next channel is the cheapest of the cell that has most of its own
    left. A channel that goes later never counts for less than one of its cell that went before it.

    Args:
        consumers: every layer that takes in any of the channels; edited.
        cell_of: ``[channels]``, the cell of each, numbered from 0.
    """
    count = len(cell_of)
    sizes = torch.bincount(cell_of)
    left = sizes.clone()
    scores = torch.zeros(count, dtype=torch.float64)
    highest = torch.zeros(len(sizes), dtype=torch.float64)
    alive = torch.ones(count, dtype=torch.bool)
    for one in consumers:
        one.look_(count)
    total = sum((one.errors.cpu() for one in consumers), torch.zeros(count, dtype=torch.float64))
    for _ in range(count):
        cell = int((left / sizes).argmax())
        channel = int(total.where(alive & (cell_of == cell), torch.inf).argmin())
        highest[cell] = scores[channel] = max(float(total[channel]), float(highest[cell]))
        alive[channel] = False
        left[cell] -= 1
        for one in consumers:
            if bool((one.owners == channel).any()):
                before = one.errors
                one.remove_(channel)
                one.look_(count)
                total += (one.errors - before).cpu()
    return scores


def _by_channel(owners: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Channels and their inputs, ``[n]`` and ``[n, k]``, for each number ``k`` of inputs that a channel has."""
    order = owners.argsort(stable=True)
    order = order[owners[order] >= 0]
    channels, counts = torch.unique(owners[order], return_counts=True)
    starts = counts.cumsum(0) - counts
    found = []
    for number in counts.unique().tolist():
        some = counts == number
        columns = starts[some][:, None] + torch.arange(number, device=owners.device)
        found.append((channels[some], order[columns]))
    return found
