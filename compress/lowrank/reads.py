"""What a forward pass reads of its layers besides calling them, and a chain of smaller layers cannot give."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from compress.composed import composed_at_need
from compress.copying import copied
from compress.errors import ModelError
from compress.inputs import Inputs, infer
from compress.lowrank.sites import Site
from compress.substitute import READABLE, Substitute, replace_


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
    found: dict[str, str] = {}
    while True:
        # The weights are only lent, for they may be big.
        twin = copied(model, {id(parameter): parameter for parameter in model.parameters()})
        names = [name for site in sites for name in site.layers if name not in found]
        probes = {name: _Probe(twin.get_submodule(name)) for name in names}
        twin = replace_(twin, probes)
        try:
            infer(twin, inputs)
        except ModelError:
            fails = True
        else:
            fails = False
        new = {
            name: f"the forward pass reads its {', '.join(sorted(probe.reads))}"
            for name, probe in probes.items()
            if probe.reads
        }
        found |= new
        # One that is no longer probed may have hidden another.
        if not (fails and new):
            return found
