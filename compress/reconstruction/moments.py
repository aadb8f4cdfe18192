"""What is summed up of a layer's inputs and of how far its outputs are off, and the weights that follow from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# In units of the mean square of an input, the strongest first. Between two neighbours the choice hardly matters.
RIDGES = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


# Outputs of a group, each with a support of its own, that a ridge is chosen by.
_TRIED_OUTPUTS = 32


class Update(NamedTuple):
    """What is added to a layer: ``weight: [groups, out / groups, in]`` and ``bias: [groups, out / groups]``."""

    weight: Tensor
    bias: Tensor | None


class Fit(NamedTuple):
    """How well a layer was met on positions held out.

    Attributes:
        before, after: squared error of the outputs with the old and with the new weights, in units of the variance of
            the dense network's outputs; ``after`` is None where there was nothing to mend.
        ridge: the one chosen, in units of the mean square of an input.
        update: what to add; None where the error does not fall.
    """

    before: float
    after: float | None = None
    ridge: float | None = None
    update: Update | None = None


@dataclass(kw_only=True, eq=False)
class _Sums:
    """Sums over positions, in float64; with a bias, an input that is always 1 comes last.

    Attributes:
        gram: ``[groups, in, in]``, inputs times inputs.
        cross: ``[groups, in, out / groups]``, inputs times residuals.
        residual_square: of the residuals, over all outputs.
        target_sum, target_square: ``[out]``, of the dense network's outputs.
        count: positions.
    """

    gram: Tensor
    cross: Tensor
    residual_square: Tensor
    target_sum: Tensor
    target_square: Tensor
    count: int = 0

    def add_(self, x: Tensor, residual: Tensor, target: Tensor) -> None:
        groups, _, inputs = x.shape
        by_group = torch.unflatten(residual, 1, (groups, -1)).transpose(0, 1)
        self.gram[:, :inputs, :inputs] += x.transpose(1, 2) @ x
        self.cross[:, :inputs] += x.transpose(1, 2) @ by_group
        if inputs < self.gram.shape[1]:
            sums = x.sum(1, dtype=torch.float64)
            self.gram[:, -1, :-1] += sums
            self.gram[:, :-1, -1] += sums
            self.gram[:, -1, -1] += len(residual)
            self.cross[:, -1] += by_group.sum(1, dtype=torch.float64)
        self.residual_square += residual.double().square().sum()
        self.target_sum += target.sum(0, dtype=torch.float64)
        self.target_square += target.double().square().sum(0)
        self.count += len(residual)

    def error(self, delta: Tensor) -> float:
        """Squared error once ``delta: [groups, in, out / groups]`` is added, summed over positions and outputs."""
        missed = delta * (self.gram @ delta - 2 * self.cross)
        return max(float(self.residual_square + missed.sum()), 0.0)

    @property
    def variance(self) -> float:
        """Of the dense network's outputs, summed over outputs and positions; at least the smallest number."""
        centered = self.target_square - self.target_sum.square() / max(self.count, 1)
        return max(float(centered.sum()), torch.finfo(torch.float64).tiny)


class Moments:
    """The sums over one layer's inputs and residuals, apart for the examples fitted on and those held out.

    Args:
        num_inputs: of each output.
        num_outputs: in all groups.
        groups: of channels.
        has_bias: whether a bias is to be fitted too.
        device: where to sum up and solve.
        support: ``[groups, out / groups, in]``, which weights may change; None if all.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        groups: int,
        *,
        has_bias: bool,
        device: torch.device,
        support: Tensor | None = None,
    ) -> None:
        self.num_inputs = num_inputs
        self.has_bias = has_bias
        self.support = None if support is None else functional.pad(support, (0, int(has_bias)), value=True)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        width = num_inputs + has_bias
        self.fitted, self.held_out = (
            _Sums(
                gram=zeros(groups, width, width),
                cross=zeros(groups, width, num_outputs // groups),
                residual_square=zeros(),
                target_sum=zeros(num_outputs),
                target_square=zeros(num_outputs),
            )
            for _ in range(2)
        )

    def add_(self, x: Tensor, residual: Tensor, target: Tensor, held_out: Tensor) -> None:
        """Take in positions.

        Args:
            x: ``[groups, n, in]``.
            residual: ``[n, out]``, the dense network's outputs less this one's.
            target: ``[n, out]``, the dense network's outputs.
            held_out: ``[n]``, whether each is of an example held out.
        """
        for sums, chosen in ((self.fitted, ~held_out), (self.held_out, held_out)):
            sums.add_(x[:, chosen], residual[chosen], target[chosen])

    @property
    def count(self) -> int:
        """Positions taken in."""
        return self.fitted.count + self.held_out.count

    def is_finite(self) -> bool:
        """Whether all that was taken in were numbers."""
        return all(
            bool(one.isfinite().all())
            for sums in (self.fitted, self.held_out)
            for one in (sums.gram, sums.cross, sums.target_square)
        )

    def fit(self, ridges: Sequence[float] = RIDGES) -> Fit:
        """The least squares change of weights and bias, by the ridge that does best on the examples held out.

        Once the ridge is chosen, the examples held out are fitted on too. ``ridges`` are tried, the strongest first, as
        long as each does better than the one before.
        """
        nothing = self.held_out.error(torch.zeros_like(self.held_out.cross))
        before = nothing / self.held_out.variance
        if nothing == 0:
            return Fit(before)
        chosen, error = self._best(ridges, nothing)
        delta = None if chosen is None else self._solved(chosen, everything=True)
        if delta is None:
            return Fit(before, before)
        weight = delta[:, : self.num_inputs].transpose(1, 2)
        update = Update(weight, delta[:, -1] if self.has_bias else None)
        return Fit(before, error / self.held_out.variance, chosen, update)

    def _best(self, ridges: Sequence[float], nothing: float) -> tuple[float | None, float]:
        """The ridge that does best on the examples held out, and the error then; None if none does any good."""
        if self.support is not None and self.support.shape[1] > _TRIED_OUTPUTS:
            # Each output is solved for alone: some of them will tell which ridge, and all whether it is any good.
            step = math.ceil(self.support.shape[1] / _TRIED_OUTPUTS)
            ridge, _ = self._some(step)._best(ridges, math.inf)
            ridges = () if ridge is None else (ridge,)
        chosen, error = None, nothing
        for ridge in ridges:
            delta = self._solved(ridge)
            if delta is None or not (own := self.held_out.error(delta)) < error:
                break
            chosen, error = ridge, own
        return chosen, error

    def _some(self, step: int) -> Moments:
        """Every ``step``-th output of each group."""
        some = copy(self)
        some.fitted, some.held_out = (
            replace(sums, cross=sums.cross[:, :, ::step]) for sums in (self.fitted, self.held_out)
        )
        some.support = None if self.support is None else self.support[:, ::step]
        return some

    def _solved(self, ridge: float, *, everything: bool = False) -> Tensor | None:
        """``[groups, in, out / groups]``: the change at a ridge; None where it cannot be solved for."""
        gram, cross = self.fitted.gram, self.fitted.cross
        if everything:
            gram, cross = gram + self.held_out.gram, cross + self.held_out.cross
        else:
            gram = gram.clone()
        diagonal = gram.diagonal(dim1=1, dim2=2)[:, : self.num_inputs]
        # A group of dead channels has no square at all.
        share = (ridge * diagonal.mean(1, keepdim=True)).clamp(min=torch.finfo(torch.float64).tiny)
        # The bias is free.
        diagonal += share
        return solved(gram, cross) if self.support is None else solved_on(gram, cross, self.support)


def solved(gram: Tensor, cross: Tensor) -> Tensor | None:
    """``x`` with ``gram @ x = cross``; None where ``gram: [groups, in, in]`` is not positive definite."""
    root, failed = torch.linalg.cholesky_ex(gram)
    return None if failed.any() else torch.cholesky_solve(cross, root)


def solved_on(gram: Tensor, cross: Tensor, support: Tensor) -> Tensor | None:
    """``x: [groups, in, out]`` with the least ``x (gram x - 2 cross)`` among those that are zero outside a support.

    Every output has a support of its own, so that each is solved for alone, exactly: what Frantar and Alistarh ("SPDY"
    and "OBC", 2022) reach by removing one weight after another from the inverse of ``gram``.

    Args:
        gram: ``[groups, in, in]``.
        cross: ``[groups, in, out]``.
        support: ``[groups, out, in]``.
    """
    result = torch.zeros_like(cross)
    for group, output in np.ndindex(*support.shape[:2]):
        chosen = support[group, output].nonzero().flatten()
        own = solved(gram[group, chosen][:, chosen][None], cross[group, chosen, output][None, :, None])
        if own is None:
            return None
        result[group, chosen, output] = own[0, :, 0]
    return result
