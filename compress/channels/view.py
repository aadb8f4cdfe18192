"""How a run calls the network, and which of what it puts out counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from compress.channels.call import tensors_in
from compress.errors import ConfigError, first_line

Outputs = Callable[[Any], Any]
"""What a model puts out to the part of it that counts: ``lambda out: out.logits``."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """Inputs for one forward pass."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One way to run a network.

    Attributes:
        example: what it is called on.
        outputs: which of its outputs count; all if None.
        known: for a run in train mode: the tensors that took part in eval mode already. None for a run in eval mode.
    """

    example: Example
    outputs: Outputs | None = None
    known: frozenset[str] | None = None

    def set_modes_(self, model: nn.Module) -> None:
        """Put ``model`` in the mode of this view.

        Torch's own modules, norms and dropout stay in eval mode: what they do else in training tells nothing of
        channels, and a norm refuses single values.
        """
        model.eval()
        for module in model.modules():
            own = type(module).__module__.startswith("torch.") or isinstance(module, (_NormBase, _DropoutNd))
            module.training = self.in_training and not own

    @property
    def in_training(self) -> bool:
        """Whether it is a run in train mode."""
        return self.known is not None

    def counted(self, output: Any) -> dict[str, Tensor]:
        """The tensors of ``output`` that count, by the names that people know them by.

        Raises:
            ConfigError: if ``outputs`` names none.
        """
        named = dict(named_tensors(output))
        if self.outputs is None or self.in_training:
            return named
        names = {id(tensor): name for name, tensor in named.items()}
        try:
            chosen = list(tensors_in([self.outputs(output)]))
        except Exception as cause:
            raise ConfigError(f"outputs must name outputs of the model, but failed: {first_line(cause)}") from cause
        if not chosen:
            raise ConfigError("outputs must name outputs of the model, got no tensor")
        return {names.get(id(tensor), f" as chosen, {number}"): tensor for number, tensor in enumerate(chosen)}


def named_tensors(output: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that a model put out, and where: `` 'hidden'``, `` [1][0]``; nothing is to say of a single one."""
    known = isinstance(output, (Tensor, Mapping, tuple, list))
    for path, tensor in _named(output if known else vars(output) if hasattr(output, "__dict__") else None, ""):
        yield f" {path}" if path else "", tensor


def _named(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _named(item, f"{path}[{key!r}]" if path else repr(key))
    elif not isinstance(value, (str, int, float)) and hasattr(value, "__iter__"):
        for index, item in enumerate(value):
            yield from _named(item, f"{path}[{index}]")
