"""What a forward pass reads of its layers besides calling them, and a chain of smaller layers cannot give."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, nn

from compress.calling.inputs import Inputs, infer
from compress.calling.outputs import named_tensors
from compress.errors import ModelError
from compress.lowrank.sites import Site
from compress.modules.composed import composed_at_need
from compress.modules.copying import copied
from compress.modules.substitute import READABLE, Substitute, replace_

_ROUNDING = 1e-3  # of the largest output


class _Probe(Substitute):
    """A layer in its own place, that notes what is read of it.

    Attributes:
        reads: what no chain could give, "weight" where its numbers are used.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.reads: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        layer = vars(self).get("_modules", {}).get("0")
        if layer is not None and name in READABLE and hasattr(layer, name):
            value = getattr(layer, name)
            return composed_at_need(self.composed_weight, value.shape, value) if name == "weight" else value
        if layer is not None and hasattr(layer, name):
            self.reads.add(name)
        return nn.Module.__getattr__(self, name)

    def composed_weight(self) -> Tensor:
        self.reads.add("weight")
        return self[0].get_parameter("weight")


def reads_in_the_way(model: nn.Module, sites: Collection[Site], inputs: Inputs) -> dict[str, str]:
    """The layers that must stay whole because of what the forward pass reads of them, by name, each with the reason."""
    expected = _tensors(infer(model, inputs))
    found: dict[str, str] = {}
    while True:
        names = [name for site in sites for name in site.layers if name not in found]
        outputs, reads = _probed(model, names, inputs)
        found |= reads
        if outputs is not None and _are_close(outputs, expected):
            return found
        # One that is no longer probed may have hidden another.
        if not reads:
            break
    if outputs is None or _are_close(_tensors(infer(model, inputs)), expected):
        # The kind of a layer leaves no trace but what comes of it.
        for name in names:
            outputs, _ = _probed(model, [name], inputs)
            if outputs is None or not _are_close(outputs, expected):
                found[name] = "the forward pass is another without it"
    return found


def _probed(model: nn.Module, names: Collection[str], inputs: Inputs) -> tuple[list[Tensor] | None, dict[str, str]]:
    """What the model puts out with probes in the places of layers, None if it fails, and what it read of them."""
    # The weights are only lent, for they may be big.
    twin = copied(model, {id(parameter): parameter for parameter in model.parameters()})
    probes = {name: _Probe(twin.get_submodule(name)) for name in names}
    twin = replace_(twin, probes)
    try:
        outputs = _tensors(infer(twin, inputs))
    except ModelError:
        outputs = None
    reads = {name: ", ".join(sorted(probe.reads)) for name, probe in probes.items() if probe.reads}
    return outputs, {name: f"the forward pass reads its {read}" for name, read in reads.items()}


def _tensors(output: Any) -> list[Tensor]:
    return [tensor for _, tensor in named_tensors(output)]


def _are_close(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Equal but for rounding, which other kernels may bring."""
    if [one.shape for one in some] != [one.shape for one in others]:
        return False
    pairs = ((one.double(), other.double()) for one, other in zip(some, others, strict=True) if one.numel())
    return all(float((one - other).abs().max()) <= _ROUNDING * float(other.abs().max()) for one, other in pairs)
