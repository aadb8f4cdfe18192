"""Which model it is, in 64 characters: two models of one fingerprint hold the same numbers in the same places.

Unlike :func:`compress.artifacts.artifact.digest`, which hashes a file, it is the same under every release of PyTorch
and of this package that builds the same model, so that it may stand in a file that is kept.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from compress.modules.attributes import kept_in
from compress.modules.copying import copied
from compress.modules.masks import make_permanent_

_SCALARS = (bool, int, float, str, bytes, type(None))
# Whoever runs a model sets its mode; it is none of what the model is.
_NOT_STRUCTURE = frozenset({"training"})


def fingerprint(model: nn.Module) -> str:
    """SHA-256, in hex, over the model's structure and its tensors; ``model`` is left as it is.

    The structure is a text with a line for each module, by name: its class without the file that defines it, its public
    attributes that are numbers, texts or tuples and lists of them, and for a graph its operations in order. Of
    PyTorch's own modules only the settings that differ from their defaults count, since a release may add one. The
    tensors are all parameters and buffers, and whatever else :meth:`torch.nn.Module.state_dict` holds, by name, each
    with its type, shape and bytes in little-endian, row-major order; one that has several names, with all of them.
    Masks of :func:`compress.prune_weights` count as the zeros that they stand for.

    Of a module that keeps what a forward pass computed, such as a grid for the last image size, no attribute counts,
    since the next pass may change it. What Python code a module's ``forward`` runs is not seen: two models of one
    fingerprint may differ in it.
    """
    if any(name.endswith("_mask") for name, _ in model.named_buffers()):
        model = make_permanent_(copied(model))
    total = hashlib.sha256()
    for line in _structure(model):
        total.update(f"{line}\n".encode())
    for name, tensor in _tensors(model):
        total.update(f"{name} {_kind(tensor)} {list(tensor.shape)}\n".encode())
        total.update(_bytes(tensor))
    return total.hexdigest()


def _structure(model: nn.Module) -> Iterator[str]:
    changing = kept_in(model)
    for name, module in sorted(model.named_modules(remove_duplicate=False)):
        known = {} if name in changing else _settings(module)
        settings = [f"{key}={_text(value)}" for key, value in sorted(known.items())]
        yield " ".join([f"{name}:", _class(module), *settings])
        if isinstance(module, fx.GraphModule):
            yield from _operations(module.graph)


def _class(module: nn.Module) -> str:
    # Every graph has a class of its own, made when it is read.
    return "GraphModule" if isinstance(module, fx.GraphModule) else type(module).__qualname__


def _settings(module: nn.Module) -> dict[str, Any]:
    """The attributes that say what a module is."""
    if isinstance(module, fx.GraphModule):
        return {}
    plain = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and key not in _NOT_STRUCTURE and _is_plain(value)
    }
    if not type(module).__module__.startswith("torch."):
        return plain
    defaults = {name: one.default for name, one in inspect.signature(type(module).__init__).parameters.items()}
    return {key: value for key, value in plain.items() if key in defaults and value != defaults[key]}


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return type(value) in _SCALARS


def _text(value: Any) -> str:
    """A value as the structure's text holds it: no list is mistaken for a tuple, no number for a text."""
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(_text, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return repr(value)


def _operations(graph: fx.Graph) -> Iterator[str]:
    """A line for each operation; values go by the number of the operation that puts them out, whatever its name."""
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    for node, number in numbers.items():
        target = node.target if isinstance(node.target, str) else _operator(node.target)
        if node.op in ("placeholder", "output"):
            target = ""
        yield f"%{number} {node.op} {target} {_operand(node.args, numbers)} {_operand(node.kwargs, numbers)}"


def _operator(target: Any) -> str:
    """``aten.conv2d.default`` as PyTorch writes it; of other functions their own name."""
    return str(target) if isinstance(target, torch._ops.OpOverload) else str(getattr(target, "__name__", target))


def _operand(value: Any, numbers: Mapping[fx.Node, int]) -> str:
    if isinstance(value, fx.Node):
        return f"%{numbers[value]}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_operand(one, numbers)}' for key, one in sorted(value.items()))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_operand(one, numbers) for one in value)}]"
    # Layouts, types and devices write themselves; a size that is a symbol, as its formula.
    return str(value) if not isinstance(value, str) else repr(value)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """By the names that each has, in order of the first of them."""
    found: dict[int, Tensor] = {}
    names: dict[int, list[str]] = {}
    for name, tensor in _named(model):
        found.setdefault(id(tensor), tensor)
        names.setdefault(id(tensor), []).append(name)
    for key, shared in sorted(names.items(), key=lambda item: sorted(item[1])):
        yield ", ".join(sorted(shared)), found[key]


def _named(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """By what it is and its name: a parameter that became a buffer is another model, with fewer of them."""
    seen = set()
    for prefix, module in model.named_modules(remove_duplicate=False):
        place = f"{prefix}." if prefix else ""
        buffers = (*module._buffers.items(), *_constants(module))
        for kind, tensors in (("parameter", module._parameters.items()), ("buffer", buffers)):
            for leaf, tensor in tensors:
                seen.add(f"{place}{leaf}")
                if tensor is not None:
                    yield f"{kind} {place}{leaf}", tensor
    for name, value in model.state_dict().items():
        if name not in seen:
            yield from _within(f"state {name}", value)


def _constants(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Tensors that a graph holds as plain attributes."""
    if not isinstance(module, fx.GraphModule):
        return []
    return [(key, value) for key, value in vars(module).items() if isinstance(value, Tensor)]


def _within(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors in what a module of its own kind puts into its state, such as packed weights."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _within(f"{name}.{key}", one)
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from _within(f"{name}.{number}", one)
    elif _is_plain(value):
        yield f"{name}={_text(value)}", torch.empty(0)


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _bytes(tensor: Tensor) -> bytes:
    plain = tensor.detach()
    if is_traceable_wrapper_subclass(plain):
        # Packed or quantized weights: what they are made of.
        return b"".join(_bytes(getattr(plain, name)) for name in plain.__tensor_flatten__()[0])
    if plain.is_quantized:
        plain = plain.dequantize()
    if plain.layout != torch.strided:
        plain = plain.to_dense()
    flat: bytes = plain.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return flat
