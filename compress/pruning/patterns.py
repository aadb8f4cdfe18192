"""N:M sparsity: of every M neighbours along a layer's input dimension, N stay.

A pattern so regular that hardware can skip the zeros: since Ampere, NVIDIA's tensor cores multiply 2:4 matrices at up
to twice the rate of dense ones.

Source: Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch", ICLR 2021; for 2:4
Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from compress.errors import ConfigError


class Pattern(NamedTuple):
    """``kept`` of ``of`` neighbours stay."""

    kept: int
    of: int


def pattern_of(text: str) -> Pattern:
    """The pattern that ``text``, such as "2:4", stands for.

    Raises:
        ConfigError: if it stands for none.
    """
    found = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text) if isinstance(text, str) else None
    if found is None or int(found[1]) >= int(found[2]):
        raise ConfigError(f"pattern must be 'n:m' with 0 < n < m, such as '2:4', got {text!r}")
    return Pattern(int(found[1]), int(found[2]))


def fits(layer: nn.Module, weight: Tensor, pattern: Pattern) -> bool:
    """Whether the layer's inputs come in whole groups of ``pattern.of``, as a kernel for the pattern needs them."""
    # A bilinear layer has two inputs, neither of them the one that a kernel would sum over.
    return not isinstance(layer, nn.Bilinear) and weight.shape[_input_dim(layer)] % pattern.of == 0


def keep_by_pattern(layer: nn.Module, weight: Tensor, pattern: Pattern) -> Tensor:
    """Booleans of the weight's shape: the largest magnitudes of each group True; of equal ones the last."""
    dim = _input_dim(layer)
    magnitude = weight.detach().abs().movedim(dim, -1)
    groups = magnitude.reshape(-1, pattern.of)
    keep = torch.ones_like(groups, dtype=torch.bool)
    # Sorting, where a threshold would take all of equal magnitude or none.
    keep.scatter_(1, groups.argsort(dim=1, stable=True)[:, : pattern.of - pattern.kept], value=False)
    return keep.reshape(magnitude.shape).movedim(-1, dim)


def holds(matrix: Tensor, pattern: Pattern) -> bool:
    """Whether ``matrix: [out, in]`` has no more non-zeros in any group than the pattern allows."""
    groups = matrix.detach().reshape(-1, pattern.of)
    return bool((groups.count_nonzero(dim=1) <= pattern.kept).all())


def _input_dim(layer: nn.Module) -> int:
    """``[out, in / groups, *kernel]``, but ``[in, out / groups, *kernel]`` where the convolution is transposed."""
    return 0 if isinstance(layer, _ConvTransposeNd) else 1
