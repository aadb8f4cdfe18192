"""Counting while a network runs: what it asks for, before it is known which kernels will do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.nn.attention import flex_attention
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compress.errors import ModelError
from compress.macs.formulas import FORMULAS

# Whose operations multiply by weights only where there is a formula for it.
_TRUSTED = ("aten", "prim", "prims", "profiler", "quantized_decomposed", "torchvision")
_MATRIX = 2  # dimensions that a weight has at least


class Macs(NamedTuple):
    """A count.

    Attributes:
        total: multiply-accumulates.
        uncounted: what took part with weights and is not in the count, because no formula for it is known.
    """

    total: int
    uncounted: tuple[str, ...]

    def whole(self, purpose: str) -> int:
        """The total, for a ``purpose`` that stands on all of it.

        Raises:
            ModelError: if something is not in it.
        """
        if self.uncounted:
            missing = ", ".join(self.uncounted)
            raise ModelError(f"{purpose} needs a count of all multiply-accumulates, that of {missing} is unknown")
        return self.total


def macs_of(forward: Callable[[], object]) -> Macs:
    """Multiply-accumulates of convolutions, matrix products, recurrent layers and attention while ``forward`` runs.

    The count is that of what the network asks for, and so the same in train and eval mode, on every device, with or
    without fast paths, and for every kernel of attention. A masked or causal attention counts in full, as does a
    weight's zero. Nested tensors, compiled code and what runs past PyTorch's dispatcher cannot be counted.
    """
    counter = _Counter()
    with _as_asked_for(counter.enter), counter:
        forward()
    return Macs(counter.total, tuple(dict.fromkeys([*counter.unknown(), *counter.unread()])))


@contextmanager
def _as_asked_for(enter: Callable[[nn.Module, object], None]) -> Iterator[None]:
    """Operations reach the counter whole, attention and recurrent layers too, and ``enter`` hears of every module."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        # Autograd would take composite operations apart, in ways that depend on the device.
        stack.enter_context(torch._C._AutoDispatchBelowAutograd())
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        # Without a compiler, which does not run while operations are listened to.
        stack.enter_context(patch.object(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", new=True))
        # The fast path leaves out what is padding.
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(register_module_forward_pre_hook(enter).remove)
        yield


class _Counter(TorchDispatchMode):
    """Adds up what every operation costs, and notes where weights went.

    Attributes:
        total: multiply-accumulates so far.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.total = 0
        self._read: set[int] = set()
        self._weights: set[int] = set()
        self._layers: dict[nn.Module, None] = {}
        # Of each operation without a formula that is not trusted: its name and the memory of its tensors.
        self._suspects: list[tuple[str, set[int] | None]] = []

    def enter(self, module: nn.Module, _inputs: object) -> None:
        """A module is called."""
        weights = _memories(_matrices(module))
        self._weights |= weights
        if weights and next(module.children(), None) is None:
            self._layers[module] = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            return self._higher_order(func, args, kwargs)
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if any(one.is_nested for one in tensors):
            self._read |= _memories(tensors)
            self._suspects.append((f"{func._schema.name} of nested tensors", None))
            return func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::").rstrip("_")
        formula = FORMULAS.get(name)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self._note(func, args, kwargs)
        if formula is not None:
            self.total += formula(_first(result), *args)
        return result

    def _higher_order(self, func: HigherOrderOperator, args: Any, kwargs: Any) -> Any:
        if func is torch.ops.higher_order.cond:
            condition, if_true, if_false, operands = args
            with self:
                return (if_true if condition else if_false)(*operands)
        result = func(*args, **kwargs)
        formula = FORMULAS.get(func.__name__)
        if formula is None:
            self._suspects.append((func.__name__, None))
        else:
            self.total += formula(_first(result), *args)
        return result

    def _note(self, func: OpOverload, args: Any, kwargs: Any) -> None:
        leaves = tree_leaves((args, kwargs))
        memories = _memories([one for one in leaves if isinstance(one, Tensor)])
        if not func.is_view:
            self._read |= memories
        name = func._schema.name
        if name.removeprefix("aten::").rstrip("_") in FORMULAS:
            return
        if any(isinstance(one, torch.ScriptObject) for one in leaves):
            # Weights in the layout of a kernel.
            self._suspects.append((name, None))
        elif func.namespace not in _TRUSTED:
            self._suspects.append((name, memories))

    def unknown(self) -> Iterator[str]:
        """The operations that took weights, and for which there is no formula."""
        for name, memories in self._suspects:
            if memories is None or memories & self._weights:
                yield name

    def unread(self) -> Iterator[str]:
        """The layers that ran without any operation of PyTorch's reading one of their weights."""
        for layer in self._layers:
            if not _memories(_matrices(layer)) & self._read:
                yield f"{type(layer).__name__}, whose weights no operation of PyTorch's reads"


def _matrices(module: nn.Module) -> list[Tensor]:
    own = module.parameters(recurse=False)
    return [one for one in own if one.ndim >= _MATRIX and one.is_floating_point() and one.numel() > 1]


def _memories(tensors: list[Tensor]) -> set[int]:
    """What all views of one tensor have in common; what has no plain memory has nothing."""
    plain = [one for one in tensors if one.layout is torch.strided and not one.is_nested]
    return {one.untyped_storage()._cdata for one in plain}


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, (tuple, list)) else result
