"""The conditions under which a network runs on labels, and the two ears that listen while it does."""

from __future__ import annotations

import gc
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from compress.calling.inputs import tensors_in
from compress.calling.randomness import own_random_state

Record = Callable[[OpOverload, Sequence[Any], Mapping[str, Any], Any], None]


class LentWrittenError(Exception):
    """The forward pass writes into a tensor that it was only lent."""


class Recorder(TorchDispatchMode):
    """Hands on every ATen call after it was made.

    Attributes:
        record: to whom.
        lent: storages that no call may write to.
    """

    def __init__(self, record: Record, lent: Container[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.record = record
        self.lent = lent

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.is_mutable and any(memory_of(tensor) in self.lent for tensor in _written(func, args, kwargs)):
            raise LentWrittenError
        strided = func is torch.ops.aten.as_strided_.default
        before = _layout(args[0]) if strided else None
        result = func(*args, **(kwargs or {}))
        # Pooling to a single position restrides its result: that moves nothing, and is no call to follow.
        if not strided or before != _layout(args[0]):
            self.record(func, args, kwargs or {}, result)
        return result


class FunctionWatch(TorchFunctionMode):
    """Hears functions as Python calls them, before they become ATen calls.

    Recurrent layers are handed on whole: their ATen calls are others on each device, and as many as there are steps.
    So is what Python reads: there is no ATen call of it.

    Attributes:
        record: to whom those are handed.
        failed: what the innermost function that failed was called on: some fail before any ATen call is made.
    """

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record
        self.failed: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            if func in _WHOLE:
                with _disable_current_modes():
                    result = func(*args, **kwargs)
                self.record(_whole(func, args), args, kwargs, result)
                return result
            result = func(*args, **kwargs)
        except Exception:
            self.failed = self.failed or list(tensors_in([args, kwargs]))
            raise
        if func in _READS:
            self.record(torch.ops.aten._local_scalar_dense.default, args[:1], {}, None)
        return result


_LAYERS = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
_CELLS = (torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell)
_WHOLE = frozenset({*_LAYERS, *_CELLS})
# What takes values out of tensors without an ATen call; a single one is taken out by the call that stands for them all.
_READS = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__})


def _whole(func: Any, args: Sequence[Any]) -> OpOverload:
    """The ATen operation that a function of the same name comes down to."""
    packet = getattr(torch.ops.aten, func.__name__)
    # A layer takes packed sequences too: their data and the sizes of the batch at each step.
    packed = func in _LAYERS and isinstance(args[1], Tensor) and not args[1].is_floating_point()
    overload: OpOverload = packet.data if packed else (packet.input if func in _LAYERS else packet.default)
    return overload


def memory_of(tensor: Tensor) -> int:
    """What all views of one storage have in common."""
    memory: int = tensor.untyped_storage()._cdata
    return memory


def _written(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> Iterator[Tensor]:
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.is_write:
            yield from tensors_in([value])
    for argument in func._schema.arguments:
        if argument.is_write:
            yield from tensors_in([(kwargs or {}).get(argument.name)])


def _layout(tensor: Tensor) -> tuple[object, ...]:
    """Which element lies where: the stride of a dimension of size 1 says nothing."""
    strides = [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]
    return tuple(tensor.shape), strides, tensor.storage_offset()


@contextmanager
def plain_forward(tensors: Iterable[Tensor]) -> Iterator[None]:
    """No gradients, no fused attention that hides its parts, and the random state as it was before, afterwards.

    And no garbage collection: what a run notes down makes Python walk all of the process's objects for cycles, which
    takes as long as the forward pass of a small network, and finds none.
    """
    devices = [tensor.device for tensor in tensors]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        # Every run is to be given the same random numbers.
        stack.enter_context(own_random_state(devices))
        stack.enter_context(torch.no_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        torch.backends.mha.set_fastpath_enabled(False)
        if gc.isenabled():
            stack.callback(gc.enable)
            gc.disable()
        yield
