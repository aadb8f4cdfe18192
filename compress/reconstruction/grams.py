"""The Gram matrices of what goes into each product with a weight, of one network on all batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from compress.calling.inputs import Inputs
from compress.channels.modes import plain_forward
from compress.errors import ModelError
from compress.reconstruction.pair import exactly, next_product, num_examples, some_positions
from compress.reconstruction.passes import ForwardPass
from compress.reconstruction.products import Product
from compress.reconstruction.survey import Parameters, Site, Survey, surveyed


@dataclass(frozen=True, kw_only=True, eq=False)
class InputGram:
    """What goes into the products with one weight, in float64.

    Attributes:
        site: the weight.
        product: one of the products with it, without activations: it knows how the weight is laid out.
        gram: ``[groups, in + 1, in + 1]``, inputs times inputs summed over positions; the last input is always 1.
        has_bias: whether the weight has a bias of its own.
    """

    site: Site
    product: Product
    gram: Tensor
    has_bias: bool

    @property
    def weight(self) -> Tensor:
        """``[groups, out / groups, in]``."""
        return self.product.matrix(self.product.weight).double()

    @property
    def variance(self) -> Tensor:
        """``[groups, out / groups]``: of the outputs, summed over positions."""
        ones = self.gram[:, :-1, -1:]
        centered = self.gram[:, :-1, :-1] - ones @ ones.transpose(1, 2) / self.gram[:, -1:, -1:].clamp(min=1)
        weight = self.weight
        return ((weight @ centered) * weight).sum(2).clamp(min=0)

    def columns_of(self, labels: Tensor) -> Tensor:
        """``[groups, in]``: what ``labels``, one for each element of the parameter, say of each input.

        They must be laid out in memory as the parameter is.
        """
        return self.product.matrix(self.site.part_of(labels))[:, 0]


def input_grams(
    model: nn.Module, batches: Sequence[Inputs], tensors: Container[str], *, seed: int = 0
) -> list[InputGram]:
    """One for each weight that products read of the parameters named in ``tensors``, in the order in which they run.

    Args:
        model: in eval mode; may keep tensors that its forward pass stores, so give a copy.
        batches: on the model's device.
        tensors: names of parameters.
        seed: of the choice of positions, where there are more than needed.

    Raises:
        ModelError: if a forward pass fails, or activations are not finite.
    """
    found: dict[Site, InputGram] = {}
    total = sum(num_examples(batch) for batch in batches)
    with plain_forward(list(model.parameters())):
        survey = surveyed(model, batches[0])
        times = Counter(survey.calls)
        parameters = Parameters(model)
        for number, batch in enumerate(batches):
            call = 0
            with ForwardPass(model, batch) as forward:
                while (product := next_product(forward, parameters)) is not None:
                    site = parameters.site(product)
                    if site.tensor in tensors:
                        own = found[site] = found.get(site) or _new(site, product, parameters, survey)
                        share = num_examples(batch) / (total * max(times[site], 1))
                        _look(own, product, forward.compute(), share, [seed, call, number])
                    call += 1
    for site, one in found.items():
        if not one.gram.isfinite().all():
            raise ModelError(
                f"activations must be finite for channels to be ranked, those into '{site.tensor}' are not"
            )
    return list(found.values())


def _new(site: Site, product: Product, parameters: Parameters, survey: Survey) -> InputGram:
    groups, _, inputs = product.matrix(product.weight).shape
    gram = torch.zeros(groups, inputs + 1, inputs + 1, dtype=torch.float64, device=product.weight.device)
    bias = None if product.bias is None else parameters.name_of(product.bias)
    operation = product.operation._replace(args=(), kwargs={})
    # A product holds on to what it multiplies.
    product = replace(product, operation=operation, x=product.x.new_empty(0))
    return InputGram(site=site, product=product, gram=gram, has_bias=survey.has_own_bias(bias))


def _look(own: InputGram, product: Product, y: Tensor, share: float, seed: Sequence[int]) -> None:
    inputs = own.gram.shape[1] - 1
    chosen = some_positions(product.num_positions(y), inputs, share, seed)
    x = exactly(product.inputs_at(y, torch.from_numpy(chosen).to(y.device)))
    sums = x.sum(1, dtype=torch.float64)
    own.gram[:, :-1, :-1] += x.transpose(1, 2) @ x
    own.gram[:, :-1, -1] += sums
    own.gram[:, -1, :-1] += sums
    own.gram[:, -1, -1] += len(chosen)
