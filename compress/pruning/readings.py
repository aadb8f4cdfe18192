"""What an importance is given to look at: a matrix ``[channels, elements]`` for each place that speaks of the channels.

A reading goes over all cells of a network at once, because one pass over the data serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from compress.calling.inputs import BATCH, device_of, each_batch, run, tensors_in
from compress.calling.outputs import Outputs, selected
from compress.calling.randomness import own_random_state
from compress.errors import ModelError
from compress.modules.copying import copied
from compress.pruning.places import Place, State, producing, rows, state_of

Loss = Callable[[Any, Any], Tensor]
Rows = list[Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What a reading may use beside the model.

    Attributes:
        batches: see :func:`~compress.calling.inputs.each_batch`.
        loss: ``(outputs, labels) -> scalar``; :func:`cross_entropy` if None.
        outputs: which of the model's outputs those are; all if None.
        seed: of what is left to chance.
    """

    batches: Iterable[Any] = field(default=())
    loss: Loss | None = None
    outputs: Outputs | None = None
    seed: int = 0


Reading = Callable[[nn.Module, Sequence[Sequence[Place]], Evidence], list[Rows]]


def weights(model: nn.Module, cells: Sequence[Sequence[Place]], _: Evidence) -> list[Rows]:
    """The filters that put each channel out."""
    state = state_of(model)
    return [_rows_at(producing(places, state), state) for places in cells]


def norm_scales(model: nn.Module, cells: Sequence[Sequence[Place]], _: Evidence) -> list[Rows]:
    """The norms' scales of each channel, ``[channels, 1]``; the filters where no norm follows."""
    state = state_of(model)
    scales = _weights_of(model, (_NormBase, nn.GroupNorm, nn.LayerNorm))
    return [
        _rows_at(
            [place for place in places if id(state[place.slot.tensor]) in scales] or producing(places, state), state
        )
        for places in cells
    ]


def draws(_: nn.Module, cells: Sequence[Sequence[Place]], evidence: Evidence) -> list[Rows]:
    """A random number in [0, 1) for each channel, ``[channels, 1]``."""
    generator = torch.Generator().manual_seed(evidence.seed)
    return [[torch.rand(len(places[0].positions), 1, generator=generator)] for places in cells]


def gate_gradients(model: nn.Module, cells: Sequence[Sequence[Place]], evidence: Evidence) -> list[Rows]:
    """``[channels, batches]``: the derivative of each batch's loss by a factor 1 on the channel.

    Such a gate sits where layers take the channel in, so that its derivative is the sum of weight times gradient over
    the weights that multiply the channel; where no layer takes it in, over the filters that put it out.
    """
    model = copied(model).eval()
    state = state_of(model)
    gates = [[place for place in places if place.consumes] or producing(places, state) for places in cells]
    names = sorted({place.slot.tensor for places in gates for place in places})
    for name in names:
        state[name].requires_grad_()
    terms: list[list[Tensor]] = [[] for _ in cells]
    for batch in each_batch(evidence.batches, device=device_of(model)):
        with torch.enable_grad(), own_random_state([device_of(model)]):
            outputs = selected(run(model, batch.inputs, BATCH), evidence.outputs)
            loss = (evidence.loss or cross_entropy)(outputs, batch.targets)
            if loss.ndim or not loss.requires_grad:
                raise ModelError("the loss for taylor must be a scalar that depends on the model's weights")
            gradients = torch.autograd.grad(loss, [state[name] for name in names], allow_unused=True)
        products = {
            name: torch.zeros_like(state[name]) if gradient is None else state[name].detach() * gradient
            for name, gradient in zip(names, gradients, strict=True)
        }
        for some, places in zip(terms, gates, strict=True):
            parts = [rows(products[place.slot.tensor], place).sum(dim=1) for place in places]
            some.append(torch.stack(parts).sum(dim=0))
    return [[torch.stack(some, dim=1)] for some in terms]


def cross_entropy(outputs: Any, labels: Any) -> Tensor:
    """The loss of a classifier; without labels against what it holds most likely itself.

    Raises:
        ModelError: if ``outputs`` are no logits ``[n, classes, ...]``.
    """
    if not isinstance(outputs, Tensor) or outputs.ndim < 2 or not outputs.is_floating_point():  # noqa: PLR2004
        raise ModelError("a model whose output is no tensor of logits [n, classes] needs a loss of its own for taylor")
    # A softmax over many classes loses too much in half precision.
    logits = outputs.float() if outputs.itemsize < 4 else outputs  # noqa: PLR2004
    return F.cross_entropy(logits, outputs.detach().argmax(dim=1) if labels is None else labels)


def activations(model: nn.Module, cells: Sequence[Sequence[Place]], evidence: Evidence) -> list[Rows]:
    """``[channels, 1]`` for each convolution or linear layer that takes the channels in: their mean absolute value.

    Where none does, the filters that put them out.
    """
    model = copied(model).eval()
    state = state_of(model)
    magnitudes = _input_magnitudes(model, evidence.batches)
    result = []
    for places in cells:
        known = [
            magnitudes[id(state[place.slot.tensor])][torch.from_numpy(place.positions)][:, None]
            for place in places
            if place.consumes and len(magnitudes.get(id(state[place.slot.tensor]), ())) == place.slot.ids.size
        ]
        result.append(known or _rows_at(producing(places, state), state))
    return result


def _input_magnitudes(model: nn.Module, batches: Iterable[Any]) -> dict[int, Tensor]:
    """For the weight of each layer, by its id: the mean absolute value of each channel of the layer's input."""
    totals: dict[int, Tensor] = {}
    counts: dict[int, int] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        data = next(tensors_in([args, kwargs]))
        dim = data.ndim - 1 - (len(module.kernel_size) if isinstance(module, _ConvNd) else 0)
        # Summed in double precision: there are many positions.
        sums = data.abs().sum([other for other in range(data.ndim) if other != dim], dtype=torch.float64).cpu()
        key = id(module.weight)
        totals[key] = totals[key] + sums if key in totals else sums
        counts[key] = counts.get(key, 0) + data.numel() // data.shape[dim]

    with ExitStack() as hooks, torch.no_grad():
        for module in model.modules():
            if isinstance(module, (_ConvNd, nn.Linear)):
                hooks.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
        hooks.enter_context(own_random_state([device_of(model)]))
        for batch in each_batch(batches, device=device_of(model)):
            run(model, batch.inputs, BATCH)
    return {key: total / counts[key] for key, total in totals.items()}


def _weights_of(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> set[int]:
    return {id(module.weight) for module in model.modules() if isinstance(module, kinds)}


def _rows_at(places: Sequence[Place], state: State) -> Rows:
    return [rows(state[place.slot.tensor], place) for place in places]
