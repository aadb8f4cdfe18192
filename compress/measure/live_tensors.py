"""The bytes of all tensors that live at once: counted as they come and go, whatever memory they are given."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compress.calling.inputs import inputs_of


def peak_live_bytes(model: nn.Module, example_inputs: Any) -> int:
    """The most bytes that the model's tensors, the input and all that one forward pass makes come to at once.

    A tensor counts from the operation that makes it until nothing refers to its storage any more; one that several
    tensors share counts once. What an operation uses within itself, such as a convolution's workspace, is not seen:
    that differs from machine to machine, and this number does not.

    Args:
        model: in eval mode, on the device of the inputs; what it is called as decides what is made.
        example_inputs: as :func:`compress.calling.inputs.inputs_of` takes them.
    """
    inputs = inputs_of(example_inputs).copy()
    live = _LiveStorages()
    with torch.no_grad(), live:
        for tensor in (*model.parameters(), *model.buffers(), *inputs.tensors):
            live.count(tensor)
        inputs.lend_to(model)
    return live.peak_bytes


class _LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages of whatever operations return, and takes them off when they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = 0
        self._live_bytes = 0
        # Storages by address, which is theirs for as long as they live.
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.count(leaf)
        return result

    def count(self, tensor: Tensor) -> None:
        """Take note of a tensor's storage, if it is a new one."""
        for storage in _storages(tensor):
            key = storage._cdata
            if key in self._known:
                continue
            size = storage.nbytes()
            self._known[key] = weakref.ref(storage, partial(self._forget, key, size))
            self._live_bytes += size
            self.peak_bytes = max(self.peak_bytes, self._live_bytes)

    def _forget(self, key: int, size: int, _: object) -> None:
        del self._known[key]
        self._live_bytes -= size


def _storages(tensor: Tensor) -> list[torch.UntypedStorage]:
    """What holds a tensor's elements: its own storage, or those of the tensors that a wrapper is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        return [storage for name in names for storage in _storages(getattr(tensor, name))]
    return [tensor.untyped_storage()]
