"""What a model is called with: a tensor, a tuple of positional arguments or a mapping of named ones; and calling it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from compress.calling.randomness import own_random_state
from compress.errors import CompressError, ConfigError, ModelError, first_line

# What a message says a model ran on.
BATCH = "a calibration batch"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The arguments of one forward pass, of any structure."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor among them, in order."""
        return list(tensors_in([self.args, self.kwargs]))

    def to(self, device: torch.device) -> Self:
        """The same with every tensor on ``device``."""
        args, kwargs = _moved((self.args, dict(self.kwargs)), device)
        return type(self)(args=args, kwargs=kwargs)

    def copy(self) -> Self:
        """The same in memory of its own."""
        copies: dict[int, Any] = {id(tensor): tensor.clone() for tensor in self.tensors}
        given = (self.args, dict(self.kwargs))
        try:
            args, kwargs = copy.deepcopy(given, {**copies})
        except Exception:  # noqa: BLE001 - an argument of any kind may say that it cannot be copied: it goes as it is
            args, kwargs = tree_map_only(Tensor, lambda tensor: copies.get(id(tensor), tensor), given)
        return type(self)(args=args, kwargs=kwargs)

    def call(self, model: Callable[..., Any]) -> Any:
        """What ``model``, or what runs it, puts out for a copy of them: a forward pass may write into its inputs."""
        return self.copy().lend_to(model)

    def lend_to(self, model: Callable[..., Any]) -> Any:
        """What ``model`` puts out for these very tensors, where it is measured what a call takes."""
        return model(*self.args, **self.kwargs)


class Batch(NamedTuple):
    """The inputs of a forward pass, and the targets that came with them, None if none did."""

    inputs: Inputs
    targets: Any

    def to(self, device: torch.device) -> Batch:
        """The same with every tensor on ``device``."""
        return Batch(self.inputs.to(device), _moved(self.targets, device))


def inputs_of(value: Any, name: str = "example_inputs") -> Inputs:
    """What a caller gave as the inputs ``name``.

    Args:
        value: a tensor, a tuple or list of positional arguments, a mapping of keyword arguments, or :class:`Inputs`.
        name: what the message calls it.

    Raises:
        ConfigError: if it is none of them.
    """
    if isinstance(value, Inputs):
        return value
    if isinstance(value, Tensor):
        return Inputs(args=(value,))
    if isinstance(value, Mapping):
        return Inputs(kwargs=dict(value))
    if isinstance(value, (tuple, list)):
        return Inputs(args=tuple(value))
    kind = type(value).__name__
    raise ConfigError(f"{name} must be a tensor, a tuple of arguments or a mapping of them, got {kind}")


def as_json(inputs: Inputs) -> tuple[Any, list[Tensor]]:
    """How inputs are nested, in words of JSON, and their tensors in order: for another process.

    Raises:
        ConfigError: if they hold something that JSON does not know.
    """
    tensors: list[Tensor] = []

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value)
            return {"tensor": len(tensors) - 1}
        if isinstance(value, Mapping):
            return {"dict": [[key, plain(item)] for key, item in value.items()]}
        if isinstance(value, (list, tuple)):
            return {"tuple" if isinstance(value, tuple) else "list": [plain(item) for item in value]}
        if value is None or isinstance(value, (bool, int, float, str)):
            return {"value": value}
        raise ConfigError(f"example inputs must be tensors and plain values, got {type(value).__name__}")

    return plain((inputs.args, dict(inputs.kwargs))), tensors


def from_json(structure: Any, tensors: Sequence[Tensor]) -> Inputs:
    """The inputs that :func:`as_json` took apart."""

    def built(value: Any) -> Any:
        ((kind, content),) = value.items()
        if kind == "tensor":
            return tensors[content]
        if kind == "dict":
            return {key: built(item) for key, item in content}
        if kind == "value":
            return content
        items = [built(item) for item in content]
        return tuple(items) if kind == "tuple" else items

    args, kwargs = built(structure)
    return Inputs(args=args, kwargs=kwargs)


def each_batch(
    batches: Iterable[Any], *, name: str = "batches", like: Inputs | None = None, device: torch.device | None = None
) -> Iterator[Batch]:
    """Read what a caller gave as the batches ``name``.

    Args:
        batches: an iterable, such as a DataLoader or a list, of inputs as :func:`inputs_of` takes them, or of pairs
            ``(inputs, targets)``: a tuple or list of two is such a pair, but for two tensors where ``like`` has two
            positional arguments.
        name: what a message calls them.
        like: inputs that the model is known to run on.
        device: where to move the tensors; left out, they stay where they are.

    Raises:
        ConfigError: if there is no batch, or one that is neither.
    """
    two = like is not None and _is_pair(like.args)
    count = 0
    for one in batches:
        inputs, targets = one if _is_pair(one) and not (two and isinstance(one[0], Tensor)) else (one, None)
        batch = Batch(inputs_of(inputs, f"a batch of {name}"), targets)
        yield batch if device is None else batch.to(device)
        count += 1
    if not count:
        raise ConfigError(f"{name} must hold at least one batch, got none (an iterator can be used only once)")


def run(model: nn.Module, inputs: Inputs, where: str = "the given inputs") -> Any:
    """The outputs of ``model`` in the mode that it is in; ``where`` says in a message what it ran on.

    Raises:
        ModelError: if its forward pass fails.
    """
    try:
        return inputs.call(model)
    except CompressError:
        raise
    except Exception as cause:
        raise ModelError(f"the forward pass on {where} failed: {first_line(cause)}") from cause


def infer(model: nn.Module, inputs: Inputs, where: str = "the given inputs") -> Any:
    """The outputs of ``model`` in eval mode and without gradients; modes and random state are afterwards as before.

    Raises:
        ModelError: if its forward pass fails.
    """
    # Inference tensors could not be used in a later training, no_grad's can.
    with evaluating(model), torch.no_grad(), own_random_state([device_of(model)]):
        return run(model, inputs, where)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples, mappings and their views."""
    if isinstance(value, Tensor):
        yield value
    elif value is None or isinstance(value, (int, float)):
        return
    elif isinstance(value, Mapping):
        yield from tensors_in(value.values())
    elif not isinstance(value, str) and hasattr(value, "__iter__"):
        for item in items_of(value):
            yield from tensors_in(item)


def items_of(value: Iterable[Any]) -> Sequence[Any]:
    """What ``value`` puts out when it is gone through, as far as that goes: some caches of whole models fail there."""
    items: list[Any] = []
    with contextlib.suppress(Exception):
        items.extend(value)
    return items


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter lies; a model without any runs on the CPU."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards each module's own mode again."""
    modes = [(module, module.training) for module in model.modules()]
    # An exported graph has one mode, the one it was exported in, and refuses to be asked for another.
    with contextlib.suppress(NotImplementedError):
        model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _is_pair(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2  # noqa: PLR2004


def _moved(value: Any, device: torch.device) -> Any:
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), value)
