"""Models on disk: one safetensors file holding the weights and the shape of the network, never a pickle.

A pruned network is what its factory builds, with some tensors smaller and some plain attributes of its modules
(``out_channels``, ``groups``, a head count, ...) changed. So the file holds every tensor and, as JSON in the
safetensors header, every plain attribute of every module; :func:`load` calls the factory and puts both back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from compress.errors import ArtifactError
from compress.files import write_atomically
from compress.pruning.unstructured import make_permanent_

FORMAT = "compress-model"
VERSION = "1"

M = TypeVar("M", bound=nn.Module)
Shape = dict[str, dict[str, Any]]


class _Content(NamedTuple):
    """What a file holds."""

    tensors: dict[str, Tensor]
    aliases: dict[str, str]  # a name that shares its tensor -> the name the tensor is stored under
    shape: Shape  # module name -> its type and plain attributes


def save(model: nn.Module, path: str | Path) -> None:
    """Write ``model`` to ``path``; an existing file is replaced only once the new one is whole.

    Masks of :func:`compress.prune_weights` become plain zeros in the file; ``model`` itself keeps them.

    Raises:
        ArtifactError: if the file cannot be written; the old one is then still there.
    """
    write_atomically(Path(path), serialize(model), ArtifactError)


def serialize(model: nn.Module) -> bytes:
    """The bytes that :func:`save` writes; equal models give equal bytes."""
    model = make_permanent_(deepcopy(model))
    tensors, aliases = _distinct(_tensors(model))
    header = {
        "format": FORMAT,
        "version": VERSION,
        "modules": json.dumps(_shape_of(model), sort_keys=True, separators=(",", ":")),
        "aliases": json.dumps(aliases, sort_keys=True, separators=(",", ":")),
    }
    return to_safetensors(tensors, header)


def digest(model: nn.Module) -> str:
    """SHA-256, in hex, of all that :func:`save` would write."""
    return hashlib.sha256(serialize(model)).hexdigest()


def load(path: str | Path, model_factory: Callable[[], M]) -> M:
    """The model that was saved to ``path``, bit for bit, in the mode (train or eval) it was saved in.

    Args:
        path: a file written by :func:`save`.
        model_factory: builds the network as it was before it was compressed, e.g. ``googlenet``; its weights do not
            matter.

    Raises:
        ArtifactError: if the file is missing, damaged, or holds another network than the factory builds.
    """
    path = Path(path)
    content = _read(path)
    model = model_factory()
    _check_same_network(content, model, path)
    for name, module in model.named_modules():
        for key, value in content.shape[name].items():
            if key != "type":
                setattr(module, key, _from_json(value))
    _put_tensors_(model, content)
    return model


def _read(path: Path) -> _Content:
    if not path.is_file():
        raise ArtifactError(f"no saved model at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise ArtifactError(f"{path} is a safetensors file, but not one that compress.save wrote")
            if header.get("version") != VERSION:
                raise ArtifactError(
                    f"{path} has format version {header.get('version')}, this release reads version {VERSION}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return _Content(tensors, json.loads(header["aliases"]), json.loads(header["modules"]))
    except (SafetensorError, KeyError, ValueError) as cause:
        raise ArtifactError(f"{path} is damaged or no saved model: {cause}") from cause
    except OSError as cause:
        raise ArtifactError(f"cannot read {path}: {cause.strerror or cause}") from cause


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name, those that share one tensor under each of their names."""
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]


def _distinct(named: Iterable[tuple[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor once, contiguous on the CPU, and the further names that stand for one of them."""
    first: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in named:
        owner = first.setdefault(id(tensor), name)
        if owner == name:
            # safetensors refuses tensors that overlap in memory, as two views of one buffer may.
            tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        else:
            aliases[name] = owner
    return tensors, aliases


def _shape_of(model: nn.Module) -> Shape:
    return {
        name: {"type": f"{type(module).__module__}.{type(module).__qualname__}", **_plain_attributes(module)}
        for name, module in model.named_modules()
    }


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    """The attributes that JSON can hold; private ones belong to the module's own bookkeeping."""
    return {key: _to_json(value) for key, value in vars(module).items() if key[0] != "_" and _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _to_json(value: object) -> Any:
    """Tuples, which are common, as arrays; lists, which are rare, marked."""
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    if isinstance(value, list):
        return {"list": [_to_json(item) for item in value]}
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(item) for item in value)
    if isinstance(value, dict):
        return [_from_json(item) for item in value["list"]]
    return value


def _check_same_network(content: _Content, model: nn.Module, path: Path) -> None:
    """Module by module: the same names, the same types, the same attributes, whatever their values."""
    ours = _shape_of(model)
    for name in sorted(content.shape.keys() | ours.keys()):
        saved, built = content.shape.get(name), ours.get(name)
        if saved is None or built is None:
            where = "the model, not in the file" if saved is None else "the file, not in the model"
            raise ArtifactError(f"{path} holds another network than the factory builds: module '{name}' is in {where}")
        if saved["type"] != built["type"] or saved.keys() != built.keys():
            what = f"is a {saved['type']} in the file and a {built['type']} in the model"
            if saved["type"] == built["type"]:
                what = f"differs in its attributes: {', '.join(sorted(saved.keys() ^ built.keys()))}"
            raise ArtifactError(f"{path} holds another network than the factory builds: module '{name}' {what}")
    names = {name for name, _ in _tensors(model)}
    if missing := names ^ (content.tensors.keys() | content.aliases.keys()):
        raise ArtifactError(f"{path} holds another network than the factory builds: tensor '{min(missing)}' differs")


def _put_tensors_(model: nn.Module, content: _Content) -> None:
    """Give every parameter and buffer its saved tensor, of whatever size, shared where it was shared."""
    parameters: dict[str, nn.Parameter] = {}
    for name, old in _tensors(model):
        owner = content.aliases.get(name, name)
        place, _, leaf = name.rpartition(".")
        # A copy, because the file's bytes lie at odd addresses, and convolutions round differently on those.
        tensor = content.tensors[owner].to(old.device, copy=True)
        if isinstance(old, nn.Parameter):
            new = parameters.setdefault(owner, nn.Parameter(tensor, requires_grad=old.requires_grad))
            setattr(model.get_submodule(place), leaf, new)
        else:
            setattr(model.get_submodule(place), leaf, tensor)
