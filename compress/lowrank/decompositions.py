"""A weight as a chain of smaller ones, in three ways, and the error of each at every rank.

All of them are orthogonal projections of the weight ``[out, in, *kernel]``, so that the error of a rank is read off the
energies of the components it leaves out, and full rank leaves out none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compress.lowrank.config import Kind

Ranks = tuple[int, int]  # channels between the first and the second layer, and between the second and the third
Counts = npt.NDArray[np.int64]
Errors = npt.NDArray[np.float64]

# A tucker decomposition has a rank for each of two dimensions; of larger grids this many ranks of each, at most, are
# looked at.
_MOST_RANKS = 192


class Stage(NamedTuple):
    """One layer of a chain: ``weight: [out, in, *kernel]``, and the spatial dimensions whose stride it takes over."""

    weight: Tensor
    dims: tuple[int, ...]


class StageSize(NamedTuple):
    """How large a stage is at each of many ranks."""

    numel: Counts
    dims: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Decomposition:
    """One way to decompose one weight.

    Attributes:
        kind: which way.
        full: the largest ranks that mean anything.
        ranks: ``[candidates, 2]``, what can be chosen from.
        errors: ``[candidates]``, the share of the weight's energy that each leaves out.
        sizes: the stages' sizes at each candidate.
        stages: the chain at given ranks.
    """

    kind: Kind
    full: Ranks
    ranks: Counts
    errors: Errors
    sizes: Sequence[StageSize]
    stages: Callable[[Ranks], Sequence[Stage]]


def kinds_for(shape: Sequence[int], kinds: Sequence[Kind]) -> list[Kind]:
    """Those of ``kinds`` that a weight of ``shape: [out, in, *kernel]`` can have; a linear one always has "channel"."""
    wide = [size > 1 for size in shape[2:]]
    if not any(wide):
        # All three are then the same two layers.
        return ["channel"]
    flat = 2
    return [kind for kind in kinds if kind != "spatial" or (len(wide) == flat and all(wide))]


def decompose(weight: Tensor, kind: Kind) -> Decomposition:
    """``weight: [out, in, *kernel]``, in float64, decomposed."""
    return _DECOMPOSE[kind](weight)


def _channel(weight: Tensor) -> Decomposition:
    """``k x k`` to ``r`` channels, then ``1 x 1``; for a linear layer simply two of them.

    Source: Denil et al., "Predicting Parameters in Deep Learning", NeurIPS 2013; Zhang et al., "Accelerating Very Deep
    Convolutional Networks for Classification and Detection", TPAMI 2016, section 2.
    """
    out, ins, *kernel = weight.shape
    first, last, energies = _factors(weight.reshape(out, -1))
    dims, ones = tuple(range(len(kernel))), (1,) * len(kernel)

    def stages(ranks: Ranks) -> Sequence[Stage]:
        rank = ranks[0]
        return (
            Stage(first[:rank].reshape(rank, ins, *kernel), dims),
            Stage(last[:, :rank].reshape(out, rank, *ones), ()),
        )

    sizes = ((ins * math.prod(kernel), dims), (out, ()))
    return _of_one_rank("channel", energies, stages, sizes)


def _spatial(weight: Tensor) -> Decomposition:
    """``k x 1`` to ``r`` channels, then ``1 x k``.

    Source: Jaderberg, Vedaldi and Zisserman, "Speeding up Convolutional Neural Networks with Low Rank Expansions", BMVC
    2014, scheme 2.
    """
    out, ins, height, width = weight.shape
    first, last, energies = _factors(weight.permute(0, 3, 1, 2).reshape(out * width, ins * height))

    def stages(ranks: Ranks) -> Sequence[Stage]:
        rank = ranks[0]
        row = last[:, :rank].reshape(out, width, rank).transpose(1, 2)
        return Stage(first[:rank].reshape(rank, ins, height, 1), (0,)), Stage(row[:, :, None], (1,))

    return _of_one_rank("spatial", energies, stages, ((ins * height, (0,)), (out * width, (1,))))


def _tucker(weight: Tensor) -> Decomposition:
    """``1 x 1`` to ``r1`` channels, ``k x k`` to ``r2``, then ``1 x 1``.

    Source: Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications",
    ICLR 2016, section 3.1; De Lathauwer et al., "A Multilinear Singular Value Decomposition", SIAM 2000.
    """
    out, ins, *kernel = weight.shape
    flat = weight.reshape(out, ins, -1)
    of_out, of_in = _basis(flat.reshape(out, -1)), _basis(flat.transpose(0, 1).reshape(ins, -1))
    core = torch.einsum("oik,oa,ib->abk", flat, of_out, of_in)
    energies = core.square().sum(2).cumsum(0).cumsum(1).cpu().numpy()
    ones = (1,) * len(kernel)

    def stages(ranks: Ranks) -> Sequence[Stage]:
        inner, outer = ranks
        return (
            Stage(of_in[:, :inner].T.reshape(inner, ins, *ones), ()),
            Stage(core[:outer, :inner].reshape(outer, inner, *kernel), tuple(range(len(kernel)))),
            Stage(of_out[:, :outer].reshape(out, outer, *ones), ()),
        )

    inner, outer = (grid.ravel() for grid in np.meshgrid(_grid(ins), _grid(out)))
    sizes = (
        StageSize(inner * ins, ()),
        StageSize(inner * outer * math.prod(kernel), tuple(range(len(kernel)))),
        StageSize(outer * out, ()),
    )
    return Decomposition(
        kind="tucker",
        full=(ins, out),
        ranks=np.stack([inner, outer], axis=1),
        errors=_errors(energies[outer - 1, inner - 1], energies[-1, -1]),
        sizes=sizes,
        stages=stages,
    )


_DECOMPOSE: Mapping[Kind, Callable[[Tensor], Decomposition]] = {
    "channel": _channel,
    "spatial": _spatial,
    "tucker": _tucker,
}


def _of_one_rank(
    kind: Kind,
    energies: Tensor,
    stages: Callable[[Ranks], Sequence[Stage]],
    sizes: Sequence[tuple[int, tuple[int, ...]]],
) -> Decomposition:
    """``energies: [full rank]`` of the components, and for each stage its elements for each unit of rank."""
    full = len(energies)
    ranks = np.arange(1, full + 1)
    kept = energies.cumsum(0).cpu().numpy()
    return Decomposition(
        kind=kind,
        full=(full, full),
        ranks=np.stack([ranks, ranks], axis=1),
        errors=_errors(kept, kept[-1]),
        sizes=[StageSize(ranks * per_rank, dims) for per_rank, dims in sizes],
        stages=stages,
    )


def _factors(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``[m, n]`` to ``first: [r, n]`` and ``last: [m, r]``, whose product it is, and the energy of each component.

    As in a singular value decomposition, but out of the eigenvectors of the smaller Gram matrix, which is many times
    faster. Their accuracy is that of orthogonal vectors, not of small singular values, and that is all it takes.
    """
    if len(matrix) <= matrix.shape[1]:
        last = _basis(matrix)
        first = last.T @ matrix
        return first, last, first.square().sum(1)
    first = _basis(matrix.T).T
    last = matrix @ first.T
    return first, last, last.square().sum(0)


def _basis(matrix: Tensor) -> Tensor:
    """``[m, n]`` to ``[m, m]``: orthonormal columns, those that hold most of the matrix's energy first."""
    vectors: Tensor = torch.linalg.eigh(matrix @ matrix.T).eigenvectors
    return vectors.flip(1)


def _grid(size: int) -> Counts:
    """The ranks up to ``size`` that are looked at: multiples of a power of two, for those that kernels like."""
    step = 1
    while size > step * _MOST_RANKS:
        step *= 2
    return np.unique([1, *range(step, size + 1, step), size])


def _errors(kept: Errors, total: float) -> Errors:
    # A weight of zeros is reproduced by any rank.
    return np.clip(1 - kept / total, 0.0, 1.0) if total > 0 else np.zeros(len(kept))
