"""A cut network repaired without labels and without training: its layers put out again what the dense ones do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from compress.calling.inputs import device_of, each_batch
from compress.errors import ConfigError, ModelError
from compress.modules.copying import check_given, copied
from compress.modules.masks import MASK, make_permanent_
from compress.modules.substitute import Substitute
from compress.pruning.plan import Member, PruningPlan, note_plans_, plans_of
from compress.pruning.surgery import kept_of
from compress.reconstruction.lockstep import fit_layers_
from compress.reconstruction.report import ReconstructionReport
from compress.system.progress import track

M = TypeVar("M", bound=nn.Module)

_REPORT = "_reconstruction_report"


def reconstruct(
    small: M,
    dense: nn.Module,
    batches: Iterable[Any],
    *,
    plan: PruningPlan | None = None,
    seed: int = 0,
    progress: bool = False,
) -> M:
    """A copy of ``small`` whose weights make of its own activations what ``dense`` makes of its own.

    In the order in which they run, the weights of each layer are fitted by least squares: given what reaches the layer
    in the smaller network, the layers before it already fitted, it is to put out what the dense network's layer puts
    out in the channels that were kept. A ridge, chosen on examples held out, holds the weights to the old ones; where
    the error on those examples does not fall, the old weights stay. Neither labels nor gradients are needed.

    Linear layers, attention's projections and convolutions of all kinds are fitted, by the operations that run and not
    by the types of modules. Weights that something else reads too, such as an embedding, stay. The statistics of batch
    norms become the dense network's, which the fit aims at: to recalibrate them afterwards does harm. Weights that a
    mask of :func:`compress.prune_weights` holds at zero stay zero, and the others make up for them. Of a factorized
    layer the last factor is fitted.

    Args:
        small: what :func:`compress.prune_channels` made of ``dense``, cut once or several times, or what
            :func:`compress.prune_weights` or :func:`compress.factorize` did.
        dense: the model before the cut. Both are left as they are.
        batches: a few hundred examples, as inputs or pairs ``(inputs, labels)``, whose labels are not used. The live
            activations of all of them, in both networks, are kept in memory, on the models' device.
        plan: how ``small`` was cut, where it does not know: if it was read from a file.
        seed: of the choice of positions that are looked at where there are more than needed.
        progress: whether to show a bar, if stderr is a terminal.

    Returns:
        The model, in the modes of the given one. :func:`report_of` tells what became of each layer.

    Raises:
        ConfigError: if there are too few examples, or it is not known how the model was cut.
        ModelError: if a forward pass fails, ``dense`` is another model, or activations are not finite.
    """
    check_given(small, "reconstruct")
    check_given(dense, "reconstruct")
    given = [batch.inputs for batch in each_batch(batches, device=device_of(small))]
    factors = _factors(small)
    cut = _Cut(_plans(small, dense, plan, factors), _masks(small), factors)
    result = copied(small)
    _take_statistics_(result, dense, cut)
    # What runs here may keep tensors of its run, which could not take part in a later training.
    edited, reference = make_permanent_(copied(result)).eval(), copied(dense).to(device_of(small)).eval()
    shown = partial(track, description="reconstructing", shown=progress)
    report = fit_layers_(edited, reference, given, cut, seed=seed, counted=shown)
    fitted = dict(edited.named_parameters())
    with torch.no_grad():
        for name, parameter in result.named_parameters():
            parameter.copy_(fitted[name])
    note_plans_(result, plans_of(small))
    setattr(result, _REPORT, report)
    return result


def report_of(model: nn.Module) -> ReconstructionReport:
    """What :func:`reconstruct` did to ``model``.

    Raises:
        ConfigError: if it did not come out of it in this process.
    """
    report = getattr(model, _REPORT, None)
    if not isinstance(report, ReconstructionReport):
        raise ConfigError(f"the model must come out of reconstruct, this {type(model).__name__} does not")
    return report


@dataclass(frozen=True)
class _Cut:
    """What one cut after another left of the dense network's tensors."""

    plans: Sequence[PruningPlan]
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    factors_of: Mapping[str, str | None] = field(default_factory=dict)

    def counterpart(self, name: str) -> str | None:
        return self.factors_of.get(name, name)

    def kept(self, name: str, tensor: Tensor) -> Tensor:
        return reduce(lambda rest, plan: kept_of(name, rest, plan.kept), self.plans, tensor)

    def factors(self, name: str, dim: int) -> Tensor | None:
        product = None
        for plan in self.plans:
            member = Member(name, dim)
            if product is not None and member in plan.kept:
                product = product[torch.from_numpy(plan.kept[member])]
            if member in plan.scales:
                own = torch.from_numpy(plan.scales[member])
                product = own if product is None else product * own
        return product

    def support(self, name: str) -> Tensor | None:
        return self.masks.get(name)


def _plans(
    small: nn.Module, dense: nn.Module, plan: PruningPlan | None, factors: Mapping[str, str | None]
) -> Sequence[PruningPlan]:
    """Those of the cuts that ``small`` came out of which lead from ``dense`` to it."""
    known = plans_of(small) if plan is None else (plan,)
    factorized = {f"{name.rpartition('.')[0]}." for name in factors.values() if name is not None}
    after, before = (
        {name: shape for name, shape in _shapes(model).items() if not name.startswith(tuple(factorized))}
        for model in (small, dense)
    )
    if not known and after != before:
        raise ConfigError("plan must say how the model was cut where it did not come out of prune_channels, got none")
    faults = []
    for first in range(max(len(known), 1)):
        cut = _Cut(known[first:])
        fault = _misfit(cut, before, after)
        if fault is None:
            return cut.plans
        faults.append(fault)
    raise ModelError(f"dense must be the model that the smaller one was cut from: {faults[0]}")


def _misfit(cut: _Cut, before: Mapping[str, torch.Size], after: Mapping[str, torch.Size]) -> str | None:
    """How tensors of the shapes ``before`` would differ from ``after`` once they are cut; None if not."""
    if unknown := sorted(before.keys() ^ after.keys()):
        return f"only one of them has a tensor '{unknown[0]}'"
    for name, whole in before.items():
        try:
            shape = cut.kept(name, torch.empty(whole, dtype=torch.bool)).shape
        except (IndexError, RuntimeError):
            return f"the cut takes more of '{name}' than it has"
        if shape != after[name]:
            return f"'{name}' would be of shape {list(shape)}, and is of shape {list(after[name])}"
    return None


def _factors(model: nn.Module) -> dict[str, str | None]:
    """The weights in the places of factorized layers, and what each stands for: the last factor for the layer."""
    found: dict[str, str | None] = {}
    for place, module in model.named_modules():
        if isinstance(module, Substitute):
            names = [f"{place}.{number}.weight" for number in range(len(module))]
            found |= dict.fromkeys(names) | {names[-1]: f"{place}.weight"}
    return found


def _masks(model: nn.Module) -> dict[str, Tensor]:
    """The masks that hold weights at zero, by the names of the weights."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    masked = [module for module in model.modules() if MASK in module._buffers]
    return {names[id(module.weight)]: module.get_buffer(MASK).bool() for module in masked}


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def _take_statistics_(small: nn.Module, dense: nn.Module, cut: _Cut) -> None:
    """Give the norms of ``small`` the dense network's running statistics, in the channels that they kept."""
    norms = dict(dense.named_modules())
    for path, norm in small.named_modules():
        if not isinstance(norm, _NormBase):
            continue
        for leaf, buffer in norm.named_buffers(recurse=False):
            own = getattr(norms[path], leaf, None)
            if isinstance(own, Tensor):
                buffer.copy_(cut.kept(f"{path}.{leaf}", own))
