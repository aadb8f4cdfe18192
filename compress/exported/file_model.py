"""A file as a module, run by a runtime that is not torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from compress.calling.batches import in_batches
from compress.calling.inputs import Inputs
from compress.errors import ArtifactError, MeasureError, ModelError, first_line
from compress.exported.structure import Signature


class FileModel(nn.Module):
    """A file as a module, run on the CPU with as many threads as torch has.

    Attributes:
        content: the bytes of the file.
        batch: how many inputs it takes at once; 0 where any number, or where the file does not say.
    """

    kind: ClassVar[str]
    batch: int = 0

    def __init__(self, content: bytes, place: str = "the model") -> None:
        super().__init__()
        self.content = content
        self.training = False
        self._threads = torch.get_num_threads()
        self._names, self._signature = self._open(place)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._threads != torch.get_num_threads():
            self._threads = torch.get_num_threads()
            self._open("the model")
        outputs = self._run_in_batches(self.arguments(args, kwargs))
        if self._signature is not None:
            return self._signature.built(iter(outputs))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] = MappingProxyType({})) -> list[Tensor]:
        """The tensors among the arguments of a call, in the order of the file's inputs."""
        if self._signature is not None:
            return [tensor.detach() for tensor in self._signature.tensors(args, kwargs)]
        given = {**dict(zip(self._names, args, strict=False)), **kwargs}
        return [given[name].detach() for name in self._names]

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's own signature
        """Nothing for False.

        Raises:
            ModelError: for True.
        """
        if mode:
            raise ModelError(f"{self.kind} cannot be trained: train the network it was exported from")
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(self.content)

    def _run_in_batches(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """The same as :meth:`_run`, of a file for one size of batch one of that size at a time."""
        if not self.batch:
            return self._run(tensors)
        found: Sequence[Tensor] = in_batches(
            lambda *some: tuple(self._run(some)), Inputs(args=tuple(tensors)), self.batch
        )
        return found

    def _open(self, place: str) -> tuple[list[str], Signature | None]:
        """Make the file ready for ``self._threads`` threads; its inputs' names, and how inputs and outputs are nested.

        Raises:
            ArtifactError: if the file is damaged, with ``place`` as its name.
            ConfigError: if the runtime is not installed.
        """
        raise NotImplementedError

    def _run(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """What comes of the tensors, in the order of the file's inputs."""
        raise NotImplementedError


def check_seen(model: nn.Module, what: str) -> None:
    """Refuse to count what PyTorch does not see: a file has no parameters and runs no operations of its own here.

    Args:
        model: any.
        what: is to be counted.

    Raises:
        MeasureError: if ``model`` is a file.
    """
    if isinstance(model, FileModel):
        raise MeasureError(f"{what} of {model.kind} cannot be told: its runtime keeps them to itself")


def signature_in(nesting: str | None, place: str) -> Signature | None:
    """What the writer of a file noted of its graph's inputs and outputs; None where it noted nothing.

    Raises:
        ArtifactError: if it is none.
    """
    if nesting is None:
        return None
    try:
        return Signature(**json.loads(nesting))
    except (TypeError, ValueError) as cause:
        raise ArtifactError(f"{place} is damaged: {first_line(cause)}") from cause
