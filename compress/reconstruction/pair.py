"""The smaller network and the dense one on one batch, stopped at the same product with a weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compress.calling.inputs import BATCH, Inputs
from compress.errors import ModelError
from compress.reconstruction.moments import Moments
from compress.reconstruction.passes import ForwardPass
from compress.reconstruction.products import Product
from compress.reconstruction.survey import Parameters, Site, Survey

# Every fourth example is held out: for the choice of the ridge, and to see whether a fit is one.
HELD_OUT = 4
# More positions than that for each unknown change nothing that could be measured.
_POSITIONS_PER_INPUT = 16
_LEAST_POSITIONS = 4096


class Origin(Protocol):
    """How the smaller network's tensors came out of the dense one's."""

    def counterpart(self, name: str) -> str | None:
        """The dense network's parameter whose products put out what those with the smaller one's ``name`` do.

        None of a factor whose products put out what nothing in the dense network does.
        """
        ...

    def kept(self, name: str, tensor: Tensor) -> Tensor:
        """What was kept of ``tensor``, which is laid out as the dense network's parameter ``name``."""
        ...

    def factors(self, name: str, dim: int) -> Tensor | None:
        """``[kept]``: what the slices along ``dim`` were multiplied by; None if by nothing."""
        ...

    def support(self, name: str) -> Tensor | None:
        """Where the smaller network's parameter ``name`` may be other than zero; None if everywhere."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """Both networks, the data, and what is known of them.

    Attributes:
        small, dense: in eval mode; the smaller one is edited.
        batches: on their device.
        origin: how the one came out of the other.
        seed: of the choice of positions.
        survey: of the smaller one.
        calls: for each product that the smaller one runs, the weight in the dense network, None where that has no such
            product, and the weight in the smaller one.
    """

    small: nn.Module
    dense: nn.Module
    batches: Sequence[Inputs]
    origin: Origin
    seed: int
    survey: Survey
    calls: Sequence[tuple[Site | None, Site]]

    @property
    def examples(self) -> list[int]:
        """How many each batch holds."""
        return [num_examples(batch) for batch in self.batches]


def num_examples(batch: Inputs) -> int:
    """The length of the first dimension of a batch's first tensor."""
    return next((tensor.shape[0] for tensor in batch.tensors if tensor.ndim), 1)


class Sums(NamedTuple):
    """What is added up for one weight.

    Attributes:
        moments: of its inputs and residuals.
        kept: ``[out]``, the dense product's outputs that the smaller one has.
        factors: ``[out]``, what it multiplied them by.
    """

    moments: Moments
    kept: Tensor
    factors: Tensor


class Pair:
    """The two networks on one batch, stopped at the same product."""

    def __init__(self, work: Work, number: int) -> None:
        self.work = work
        self.number = number
        self.first = sum(work.examples[:number])
        self.dense_parameters, self.parameters = Parameters(work.dense), Parameters(work.small)
        self.ahead: Product | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            batch = self.work.batches[self.number]
            self.dense = stack.enter_context(ForwardPass(self.work.dense, batch))
            self.small = stack.enter_context(ForwardPass(self.work.small, batch))
            self.let_dense_go_on()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def let_dense_go_on(self) -> None:
        """Run the dense network up to its next product, where it holds on to less than behind this one."""
        self.ahead = next_product(self.dense, self.dense_parameters)

    def advance(self, call: int) -> None:
        """Run the smaller network, too, up to the product number ``call``."""
        product = next_product(self.small, self.parameters)
        dense_site, site = self.work.calls[call]
        theirs = None if dense_site is None or self.ahead is None else self.dense_parameters.site(self.ahead)
        if product is None or self.parameters.site(product) != site or theirs != dense_site:
            raise ModelError(f"{BATCH} must take the same way through the models as the first one, one does not")
        self.ours = product
        if dense_site is not None and self.ahead is not None:
            self.theirs = self.ahead

    def new_sums(self, call: int) -> Sums:
        """Where to add up what all batches show of the weight that product number ``call`` reads."""
        ours, (_, site) = self.ours, self.work.calls[call]
        rest = self.parameters.tensors[site.tensor]
        support = self.work.origin.support(site.tensor)
        if support is not None:
            support = ours.matrix(site.part_of(torch.empty_like(rest, dtype=torch.bool).copy_(support)))
        bias = None if ours.bias is None else self.parameters.name_of(ours.bias)
        moments = Moments(
            ours.matrix(ours.weight).shape[2],
            ours.num_outputs,
            ours.groups,
            has_bias=self.work.survey.has_own_bias(bias),
            device=ours.weight.device,
            support=support,
        )
        kept, factors = self._outputs(call)
        if len(kept) != ours.num_outputs or bool((kept < 0).any()):
            raise ModelError(
                f"it must be known which outputs the smaller model kept: '{site.tensor}' has {ours.num_outputs},"
                f" and {len(kept)} were kept (a factorized model that was cut must be reconstructed before the cut)"
            )
        return Sums(moments, kept, exactly(factors))

    def _outputs(self, call: int) -> tuple[Tensor, Tensor]:
        """``[out]``: which of the dense product's outputs the smaller one has, and what it multiplied them by."""
        theirs, ours, origin = self.theirs, self.ours, self.work.origin
        dense_site, site = self.dense_parameters.site(theirs), self.work.calls[call][1]
        shape = theirs.matrix(theirs.weight).shape
        outputs = torch.arange(theirs.num_outputs, device=theirs.weight.device).view(*shape[:2], 1).expand(shape)
        labels = torch.full_like(self.dense_parameters.tensors[dense_site.tensor], -1, dtype=torch.int64)
        dense_site.part_of(labels).copy_(theirs.unmatrix(outputs))
        labels = origin.kept(dense_site.tensor, labels)
        scale = origin.factors(dense_site.tensor, theirs.out_dim)
        if dense_site.tensor != site.tensor:
            # The last factor of what was one layer has its outputs, and nothing else of it.
            kept = theirs.matrix(labels)[:, :, 0].flatten()
            return kept, torch.ones_like(kept, dtype=ours.weight.dtype) if scale is None else scale.to(ours.weight)
        rest = self.parameters.tensors[site.tensor]
        factors = torch.ones_like(rest)
        if scale is not None:
            factors *= scale.to(factors).view([-1 if dim == ours.out_dim else 1 for dim in range(rest.ndim)])
        # Laid out in memory as the weight is, so that the part of it that the product reads can be found.
        laid_out = torch.empty_like(rest, dtype=torch.int64).copy_(labels)
        kept, own = (ours.matrix(site.part_of(one))[:, :, 0].flatten() for one in (laid_out, factors))
        return kept, own

    def look(self, call: int, sums: Sums, times: int) -> None:
        """Add what goes into the product, and how far from the dense network's its outputs are, to ``sums``."""
        theirs, ours = self.theirs, self.ours
        y, target_y = ours.operation.result(), self.dense.compute()
        positions, held_out = self._positions(call, ours.num_positions(y), sums.moments.num_inputs, times)
        target = exactly(theirs.outputs_at(target_y, positions))[:, sums.kept] * sums.factors
        residual = target - exactly(ours.outputs_at(y, positions))
        sums.moments.add_(exactly(ours.inputs_at(y, positions)), residual, target, held_out)

    def _positions(self, call: int, count: int, inputs: int, times: int) -> tuple[Tensor, Tensor]:
        """``[n]`` positions out of ``count``, and whether each is of an example held out."""
        examples = self.work.examples[self.number]
        share = examples / (sum(self.work.examples) * times)
        chosen = some_positions(count, inputs, share, [self.work.seed, call, self.number])
        example = self.first + chosen * examples // count
        device = self.ours.weight.device
        held_out = torch.from_numpy(example % HELD_OUT == HELD_OUT - 1)
        return torch.from_numpy(chosen).to(device), held_out.to(device)


def some_positions(count: int, inputs: int, share: float, seed: Sequence[int]) -> npt.NDArray[np.int64]:
    """As many of ``count`` positions, in order, as are this ``share`` of all that ``inputs`` unknowns need."""
    wanted = math.ceil(max(_POSITIONS_PER_INPUT * inputs, _LEAST_POSITIONS) * share)
    if wanted >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, wanted, replace=False))


def next_product(forward: ForwardPass, parameters: Parameters) -> Product | None:
    """The next product with one of ``parameters`` that a pass asks for, None once it is done."""
    while (operation := forward.next()) is not None:
        product = parameters.product(operation)
        if product is not None:
            return product
    return None


def exactly(tensor: Tensor) -> Tensor:
    """In a precision that sums can be taken in."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
