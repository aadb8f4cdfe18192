"""What a layer's inputs look like, so that the error counts that matters: of its outputs, not of its weights.

Of ``W x`` the error ``E |W x - W' x|^2`` is that of the weights ``W C^(1/2)``, with ``C`` the second moment of ``x``.
For a convolution ``x`` is a patch of ``in * k * k`` values; its moment is taken for a product of one over channels and
one along each spatial dimension, as Grosse and Martens do. Every decomposition of the weight so whitened is then one of
the layer, in which errors of all kinds and ranks compare. The outputs of a convolution count alike, whatever their
scale, for a norm that follows makes them so.

Source: Grosse and Martens, "A Kronecker-factored Approximate Fisher Matrix for Convolution Layers", ICML 2016, for the
product; Wang et al., "SVD-LLM", ICLR 2025, for whitening before truncation in linear layers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from compress.calling.inputs import Inputs, infer
from compress.lowrank.decompositions import Stage
from compress.lowrank.sites import Layer, Site, batched, watched

# Directions in which the calibration data do not vary at all still get this share of the mean: other data may.
_SMALLEST_SHARE = 1e-4


class Whitening(NamedTuple):
    """For the input channels and each spatial dimension of a kernel, in that order, a square root and its inverse.

    ``roots: [in, in], [k, k], ...``, symmetric; ``scales: [out]`` of the outputs.
    """

    roots: Sequence[Tensor]
    inverses: Sequence[Tensor]
    scales: Tensor

    def applied(self, weight: Tensor) -> Tensor:
        """``weight: [out, in, *kernel]``, for whitened inputs and outputs of one scale."""
        return _scaled(_whitened(weight, self.roots), 1 / self.scales)

    def undone(self, stages: Sequence[Stage]) -> Sequence[Stage]:
        """A chain for whitened inputs and scaled outputs, as one for inputs and outputs as they are."""
        result = []
        for number, (weight, dims) in enumerate(stages):
            raw = _multiplied(weight, self.inverses[0], 1) if number == 0 else weight
            for dim in dims:
                raw = _multiplied(raw, self.inverses[1 + dim], 2 + dim)
            result.append(Stage(_scaled(raw, self.scales) if number == len(stages) - 1 else raw, dims))
        return result


class _Sums:
    """Running sums over the inputs of one site's layers."""

    def __init__(self, site: Site) -> None:
        layer = site.layer
        self.weight = site.weight
        self.kernel = list(self.weight.shape[2:])
        # A transposed convolution meets each input alone.
        self.steps = [0 if site.is_transposed else step for step in getattr(layer, "dilation", ())]
        channels = self.weight.shape[1]
        self.count = 0
        self.total = torch.zeros(channels, dtype=torch.float64, device=layer.weight.device)
        self.products = torch.zeros(channels, channels, dtype=torch.float64, device=layer.weight.device)
        self.lagged = [[0.0] * size for size in self.kernel]
        self.pairs = [[0] * size for size in self.kernel]

    def add(self, inputs: Tensor) -> None:
        """``inputs: [n, in, *spatial]``."""
        flat = inputs.transpose(0, 1).reshape(inputs.shape[1], -1).float()
        self.count += flat.shape[1]
        self.total += flat.sum(1)
        self.products += flat @ flat.T
        for dim, (size, step) in enumerate(zip(self.kernel, self.steps, strict=True), 2):
            for lag in range(size if step else 0):
                length = inputs.shape[dim] - lag * step
                if length > 0:
                    one, other = inputs.narrow(dim, 0, length), inputs.narrow(dim, lag * step, length)
                    self.lagged[dim - 2][lag] += float(torch.linalg.vecdot(one, other).sum(dtype=torch.float64))
                    self.pairs[dim - 2][lag] += one.numel() // inputs.shape[1]

    def whitening(self, *, centered: bool) -> Whitening:
        """Of what was added; around its mean, or around zero."""
        mean = self.total / self.count if centered else torch.zeros_like(self.total)
        # With few rows for many channels chance decides what seems not to vary; the mean of all is the safer guess.
        doubt = len(mean) / (len(mean) + self.count)
        pairs = [_root(self.products / self.count - mean.outer(mean), doubt + _SMALLEST_SHARE)]
        for lagged, counts in zip(self.lagged, self.pairs, strict=True):
            moments = [value / max(1, count) - float(mean @ mean) for value, count in zip(lagged, counts, strict=True)]
            pairs.append(_root(_toeplitz(moments).to(mean.device), _SMALLEST_SHARE))
        roots = [root for root, _ in pairs]
        scales = torch.ones(len(self.weight), dtype=mean.dtype, device=mean.device)
        if self.kernel:
            norms = _whitened(self.weight, roots).flatten(1).norm(dim=1)
            scales = torch.where(norms > 0, norms, 1.0)
        return Whitening(roots, [inverse for _, inverse in pairs], scales)


def whitenings(model: nn.Module, calibration: Iterable[Inputs], sites: Collection[Site]) -> Mapping[Site, Whitening]:
    """Run the calibration data through the model, and see what reaches each site.

    Layers with a bias are whitened by covariances, since a bias takes up what the mean loses; others by second moments.
    """
    sums = {site: _Sums(site) for site in sites}

    def see(site: Site, layer: Layer, given: Tensor, _output: Tensor) -> None:
        sums[site].add(batched(layer, given))

    with watched(sites, see):
        for batch in calibration:
            infer(model, batch)
    return {site: one.whitening(centered=site.layer.bias is not None) for site, one in sums.items() if one.count}


def lost_means(
    model: nn.Module, calibration: Iterable[Inputs], chains: Mapping[Site, Mapping[str, nn.Module]]
) -> Mapping[str, Tensor]:
    """``[out]`` for each layer with a bias, by name: its mean output minus that of its chain on the same inputs."""
    names = {layer: name for site in chains for name, layer in site.layers.items() if layer.bias is not None}
    lost: dict[str, list[Tensor]] = {name: [] for name in names.values()}
    counts = dict.fromkeys(names.values(), 0)

    def see(site: Site, layer: Layer, given: Tensor, output: Tensor) -> None:
        if layer in names:
            name = names[layer]
            rows = batched(layer, output - chains[site][name](given)).transpose(0, 1).flatten(1)
            lost[name].append(rows.sum(1, dtype=torch.float64))
            counts[name] += rows.shape[1]

    with watched(chains, see):
        for batch in calibration:
            infer(model, batch)
    return {name: torch.stack(sums).sum(0) / counts[name] for name, sums in lost.items() if sums}


def _toeplitz(moments: Sequence[float]) -> Tensor:
    """``[k, k]``: how values at each two places of a kernel move together, over how one moves with itself."""
    if not moments[0] > 0:
        return torch.eye(len(moments), dtype=torch.float64)
    places = torch.arange(len(moments))
    return torch.tensor(moments, dtype=torch.float64)[(places[:, None] - places).abs()] / moments[0]


def _root(moment: Tensor, doubt: float) -> tuple[Tensor, Tensor]:
    """The symmetric square root of a moment, mixed with a share of its mean in all directions, and the inverse.

    Source: Ledoit and Wolf, "A Well-conditioned Estimator for Large-dimensional Covariance Matrices", 2004.
    """
    values, vectors = torch.linalg.eigh(moment)
    if not values[-1] > 0:
        identity = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
        return identity, identity
    share = min(1.0, doubt)
    # Rounding may leave a value below zero.
    roots = ((1 - share) * values.clamp(min=0.0) + share * values.mean()).sqrt()
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def _whitened(weight: Tensor, roots: Sequence[Tensor]) -> Tensor:
    for dim, root in enumerate(roots, 1):
        weight = _multiplied(weight, root, dim)
    return weight


def _scaled(weight: Tensor, scales: Tensor) -> Tensor:
    return weight * scales.view(-1, *(1,) * (weight.ndim - 1))


def _multiplied(weight: Tensor, matrix: Tensor, dim: int) -> Tensor:
    product: Tensor = torch.tensordot(weight, matrix, dims=([dim], [0]))
    return product.movedim(-1, dim)
