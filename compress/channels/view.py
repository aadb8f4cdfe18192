"""One way to run a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from compress.calling.inputs import Inputs, tensors_in
from compress.calling.outputs import Outputs, named_tensors, selected


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One way to run a network.

    Attributes:
        example: what it is called on.
        outputs: which of its outputs count; all if None.
        known: for a run in train mode: the tensors that took part in eval mode already. None for a run in eval mode.
    """

    example: Inputs
    outputs: Outputs | None = None
    known: frozenset[str] | None = None

    @property
    def in_training(self) -> bool:
        """Whether it is a run in train mode."""
        return self.known is not None

    def set_modes_(self, model: nn.Module) -> None:
        """Put ``model`` in the mode of this view.

        Torch's own modules, norms and dropout stay in eval mode: what they do else in training tells nothing of
        channels, and a norm refuses single values.
        """
        model.eval()
        for module in model.modules():
            own = type(module).__module__.startswith("torch.") or isinstance(module, (_NormBase, _DropoutNd))
            module.training = self.in_training and not own

    def counted(self, output: Any) -> list[tuple[str, Tensor]]:
        """The tensors of ``output`` that count, and what people call them.

        Raises:
            ConfigError: if ``outputs`` names none.
        """
        named = list(named_tensors(output))
        if self.outputs is None or self.in_training:
            return named
        names = {id(tensor): name for name, tensor in named}
        return [(names.get(id(tensor), "as chosen"), tensor) for tensor in tensors_in([selected(output, self.outputs)])]
