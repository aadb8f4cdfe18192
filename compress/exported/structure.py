"""How the inputs and outputs of a graph are nested, in words of JSON: what runs it may know no class of theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils._pytree import TreeSpec

from compress.errors import ModelError

# A tensor; {"value": constant}; {"list" or "tuple": [...]}; {"dict": [[key, ...], ...]}.
Structure = Any
_TENSOR = "tensor"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a graph takes and puts out.

    Attributes:
        args: of each positional argument.
        kwargs: of each named one.
        names: of the positional ones.
        outputs: of what it puts out.
    """

    args: list[Structure]
    kwargs: dict[str, Structure]
    names: list[str]
    outputs: Structure

    def arranged(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as the graph takes them: each may be given by its place or its name, constants left out.

        Raises:
            ModelError: if one is missing, or none of that name is taken.
        """
        order = [*self.names, *self.kwargs]
        given = dict(zip(order, args, strict=False))
        unknown = [*(kwargs.keys() - order), *args[len(order) :]]
        if unknown or given.keys() & kwargs.keys():
            raise ModelError(f"the model takes {', '.join(order)}, got {len(args)} arguments and {sorted(kwargs)}")
        given |= kwargs
        for name, structure in zip(order, [*self.args, *self.kwargs.values()], strict=True):
            if name in given:
                continue
            if _TENSOR in _leaves(structure):
                raise ModelError(f"the model takes {', '.join(order)}, '{name}' is missing")
            given[name] = _built(structure, iter(()))
        return [given[name] for name in self.names], {name: given[name] for name in self.kwargs}

    def tensors(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """The tensors among the arguments, in the order of the graph's inputs."""
        by_place, by_name = self.arranged(args, kwargs)
        structures, values = [*self.args, *self.kwargs.values()], [*by_place, *by_name.values()]
        return [one for pair in zip(structures, values, strict=True) for one in _tensors(*pair)]

    def built(self, outputs: Iterator[Tensor]) -> Any:
        """The outputs as they are nested, of their tensors in order."""
        return _built(self.outputs, outputs)

    @staticmethod
    def of(program: ExportedProgram) -> Signature:
        """What is written in a program."""
        signature, spec = program.graph_signature, program.call_spec
        taken = (one.arg for one in signature.input_specs if one.kind is InputKind.USER_INPUT)
        given = (one.arg for one in signature.output_specs if one.kind is OutputKind.USER_OUTPUT)
        outputs = map(_leaf, given)
        placed, named = spec.in_spec.children()
        arguments = list(taken)
        leaves = map(_leaf, arguments)
        args = [_structure(child, leaves) for child in placed.children()]
        kwargs = {key: _structure(child, leaves) for key, child in zip(named.context, named.children(), strict=True)}
        plain = all(child.is_leaf() for child in placed.children())
        names = [str(one.name) if plain else f"argument {place}" for place, one in enumerate(arguments[: len(args)])]
        return Signature(args=args, kwargs=kwargs, names=names, outputs=_structure(spec.out_spec, outputs))


def plain_spec(spec: TreeSpec) -> TreeSpec:
    """The same nesting in dictionaries, lists and tuples alone, which every reader of a file knows."""
    if spec.is_leaf():
        return spec
    children = [plain_spec(child) for child in spec.children()]
    if spec.type in (list, tuple):
        return TreeSpec(spec.type, None, children)
    keys = _keys(spec)
    return TreeSpec(tuple, None, children) if keys is None else TreeSpec(dict, keys, children)


def _keys(spec: TreeSpec) -> list[Any] | None:
    """The keys of a mapping's entries, or the names of a dataclass's fields; None for a sequence."""
    if not isinstance(spec.type, type):
        # torch keeps named tuples under the function that makes them.
        return None
    if issubclass(spec.type, Mapping):
        # A defaultdict keeps its factory beside its keys.
        keys = spec.context[1] if len(spec.context) == 2 and isinstance(spec.context[1], list) else spec.context  # noqa: PLR2004
        return list(keys)
    if dataclasses.is_dataclass(spec.type):
        return list(spec.context[0])
    return None


def _leaf(argument: Any) -> Structure:
    return {"value": argument.value} if isinstance(argument, ConstantArgument) else _TENSOR


def _structure(spec: TreeSpec, leaves: Iterator[Structure]) -> Structure:
    if spec.is_leaf():
        return next(leaves)
    parts = [_structure(child, leaves) for child in spec.children()]
    keys = _keys(spec)
    if keys is not None:
        return {"dict": [[key, part] for key, part in zip(keys, parts, strict=True)]}
    return {"list" if spec.type is list else "tuple": parts}


def _parts(structure: Mapping[str, Any]) -> list[Structure]:
    """What a container holds."""
    ((kind, content),) = structure.items()
    return [part for _, part in content] if kind == "dict" else content


def _leaves(structure: Structure) -> Iterator[Structure]:
    if structure == _TENSOR or "value" in structure:
        yield structure
        return
    for part in _parts(structure):
        yield from _leaves(part)


def _tensors(structure: Structure, value: Any) -> Iterator[Tensor]:
    if structure == _TENSOR:
        yield value
    elif "value" not in structure:
        ((kind, content),) = structure.items()
        values = [value[key] for key, _ in content] if kind == "dict" else value
        for part, one in zip(_parts(structure), values, strict=True):
            yield from _tensors(part, one)


def _built(structure: Structure, tensors: Iterator[Tensor]) -> Any:
    if structure == _TENSOR:
        return next(tensors)
    ((kind, content),) = structure.items()
    if kind == "value":
        return content
    if kind == "dict":
        return {key: _built(part, tensors) for key, part in content}
    parts = [_built(part, tensors) for part in content]
    return parts if kind == "list" else tuple(parts)
