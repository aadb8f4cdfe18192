"""Models on disk, never as a pickle: safetensors for a network that its factory builds, other files without.

A pruned network is what its factory builds, with some tensors smaller and some plain attributes of its modules
(``out_channels``, ``groups``, a head count, ...) changed; a factorized one has several plain layers in the place of
one. So the file holds every tensor and, as JSON in the safetensors header, every plain attribute of every module and
the places of substitutes; :func:`load` calls the factory and puts all of it back.

What is a graph, as a quantized model is, or shall run without its source code, is written as an archive of
``torch.export`` (``.pt2``), as ONNX (``.onnx``) or for ExecuTorch (``.pte``), see :mod:`compress.exported`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.export import ExportedProgram

from compress.calling.fidelity import check_same
from compress.calling.inputs import Inputs, device_of, inputs_of
from compress.errors import ArtifactError, ConfigError
from compress.exported import ExportedModel, capture, from_archive, to_archive
from compress.exported.archive import MAGIC
from compress.exported.executorch import PteModel, to_pte
from compress.exported.file_model import FileModel
from compress.exported.onnx import OnnxModel, to_onnx
from compress.modules.attributes import (
    Shape,
    difference,
    from_json,
    kept_in,
    made_objects,
    objects_in,
    put_back_,
    shape_of,
)
from compress.modules.copying import check_given, copied
from compress.modules.masks import make_permanent_
from compress.modules.substitute import read_substitutes, restored, substitutes_in
from compress.quantization.half import HalfModel
from compress.quantization.model import KIND, QuantizedModel
from compress.system.files import write_atomically

FORMAT = "compress-model"
VERSION = 1

M = TypeVar("M", bound=nn.Module)


class _Content(NamedTuple):
    """What a file holds."""

    tensors: dict[str, Tensor]
    aliases: dict[str, str]  # a name that shares its tensor -> the name the tensor is stored under
    shape: Shape  # module name -> its type and plain attributes
    fleeting: frozenset[str]  # buffers that a state dict leaves out
    kept: dict[str, list[str]]  # module name -> attributes that held tensors of a forward pass, which are not saved
    objects: dict[str, list[str]]  # module name -> attributes that held other objects, which are not saved either
    substitutes: dict[str, str]  # module name -> the type of the layer that the factory builds there
    half: str | None  # the type that inputs are cast to


def save(model: nn.Module, path: str | Path, example_inputs: Any = None) -> None:
    """Write ``model`` to ``path``; an existing file is replaced only once the new one is whole.

    The file's name says what is written: ``.pt2`` an archive of ``torch.export``, ``.onnx`` an ONNX model, ``.pte`` one
    for ExecuTorch and the batch size of the example inputs, which all run without the network's source code; any other,
    safetensors for :func:`load` with the network's factory. A graph, as :func:`compress.quantize` returns, is always
    one of the first three.

    Masks of :func:`compress.prune_weights` become plain zeros in the file; ``model`` itself keeps them.

    Args:
        model: in eval mode for ``.pt2``, ``.onnx`` and ``.pte``.
        path: where to.
        example_inputs: a tensor ``[n, ...]``, a tuple of positional arguments or a mapping of named ones, for ``.pte``,
            and for ``.pt2`` and ``.onnx`` of what is no graph yet.

    Raises:
        ArtifactError: if the file cannot be written; the old one is then still there.
        ConfigError: if an example input is needed, or a package to write ONNX or for ExecuTorch.
        ModelError: if the model cannot be exported, or its graph computes something else.
    """
    path = Path(path)
    write = {".pt2": _as_archive, ".onnx": _as_onnx, ".pte": _as_pte}.get(path.suffix)
    content = serialize(model) if write is None else write(model, example_inputs)
    write_atomically(path, content, ArtifactError)


def serialize(model: nn.Module) -> bytes:
    """The bytes that :func:`save` writes of ``model`` alone; equal models give equal bytes."""
    if isinstance(model, FileModel):
        return model.content
    if isinstance(model, ExportedModel):
        return to_archive(model.program, model.notes)
    check_given(model, "save")
    network = model.network if isinstance(model, HalfModel) else model
    network = make_permanent_(copied(network))
    tensors, aliases = _distinct(_tensors(network))
    header: dict[str, Any] = {"version": VERSION, "modules": shape_of(network), "aliases": aliases}
    if kept := kept_in(network):
        header["kept"] = kept
    if objects := objects_in(network):
        header["objects"] = objects
    if fleeting := _fleeting(network):
        header["fleeting"] = fleeting
    if substitutes := substitutes_in(network):
        header["substitutes"] = substitutes
    if isinstance(model, HalfModel):
        header["half"] = model.precision
    # A single entry: safetensors writes several in an order that changes from one call to the next.
    return to_safetensors(tensors, {FORMAT: json.dumps(header, sort_keys=True, separators=(",", ":"))})


def _as_archive(model: nn.Module, example_inputs: Any) -> bytes:
    if isinstance(model, ExportedModel):
        return to_archive(model.program, model.notes)
    return to_archive(_captured(model, example_inputs))


def _as_onnx(model: nn.Module, example_inputs: Any) -> bytes:
    if isinstance(model, OnnxModel):
        return model.content
    return to_onnx(model.program if isinstance(model, ExportedModel) else _captured(model, example_inputs))


def _as_pte(model: nn.Module, example_inputs: Any) -> bytes:
    if isinstance(model, PteModel):
        return model.content
    inputs = _given_inputs(model, example_inputs)
    return to_pte(model if isinstance(model, ExportedModel) else make_permanent_(copied(model)).eval(), inputs)


def _given_inputs(model: nn.Module, example_inputs: Any) -> Inputs:
    if example_inputs is None:
        kind = type(model).__name__
        raise ConfigError(f"example_inputs are needed to write a {kind} as .pt2, .onnx or .pte, got none")
    check_given(model, "save")
    return inputs_of(example_inputs)


def _captured(model: nn.Module, example_inputs: Any) -> ExportedProgram:
    inputs = _given_inputs(model, example_inputs)
    program = capture(make_permanent_(copied(model)).eval(), inputs)
    check_same(model, program.module(check_guards=False), inputs, "the exported graph")
    return program


def digest(model: nn.Module) -> str:
    """SHA-256, in hex, of all that :func:`save` would write."""
    return hashlib.sha256(serialize(model)).hexdigest()


@overload
def load(path: str | Path, model_factory: Callable[[], M]) -> M: ...
@overload
def load(path: str | Path, model_factory: None = None) -> nn.Module: ...
def load(path: str | Path, model_factory: Callable[[], nn.Module] | None = None) -> nn.Module:
    """The model that was saved to ``path``, bit for bit, in the mode (train or eval) it was saved in.

    Args:
        path: a file written by :func:`save`; or by anyone else as ``.onnx``, as ``.pt2``, or as the safetensors of a
            plain state dict of the network, which comes in the mode that the factory builds it in.
        model_factory: builds the network as it was before it was compressed, e.g. ``googlenet``; its weights do not
            matter. Not needed for what runs without the network's source code.

    Raises:
        ArtifactError: if the file is missing, damaged, or holds another network than the factory builds.
        ConfigError: if it needs a factory, or a package that is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"no saved model at {path}")
    if path.suffix == ".onnx":
        return OnnxModel(_bytes(path), str(path))
    if path.suffix == ".pte":
        return PteModel(_bytes(path), str(path))
    with path.open("rb") as file:
        is_archive = file.read(len(MAGIC)) == MAGIC
    if is_archive:
        program, notes = from_archive(_bytes(path), str(path))
        return (QuantizedModel if notes.get("kind") == KIND else ExportedModel)(program, notes)
    if model_factory is None:
        raise ConfigError(f"{path} holds no graph: give load the model_factory that builds its network")
    return _load_into(path, model_factory)


def _load_into(path: Path, model_factory: Callable[[], nn.Module]) -> nn.Module:
    """Put what a safetensors file holds into what the factory builds."""
    content = _read(path)
    if not isinstance(content, _Content):
        return _load_state(content, model_factory(), path)
    names = content.tensors.keys() | content.aliases.keys()
    model = restored(model_factory(), content.substitutes, content.shape, names, path)
    _check_same_network(content, model, path)
    for name, module in model.named_modules():
        keeps = name in content.kept or bool(made_objects(vars(module), content.objects.get(name, ())))
        put_back_(module, content.shape[name], keeps=keeps)
    _make_buffers_(model, content, path)
    _put_tensors_(model, content)
    if content.half is None:
        return model
    try:
        return HalfModel(model, content.half)
    except ConfigError as cause:
        raise ArtifactError(f"{path} is damaged or of another release: {cause}") from cause


def _load_state(state: dict[str, Tensor], model: nn.Module, path: Path) -> nn.Module:
    """``model`` with the tensors of a plain state dict; of those that share memory, one name is enough."""
    built = model.state_dict(keep_vars=True)
    given = {id(built[name]) for name in state.keys() & built.keys()}
    missing = {name for name, tensor in built.items() if id(tensor) not in given}
    if differ := missing | (state.keys() - built.keys()):
        where = "the model, not in the file" if min(differ) in built else "the file, not in the model"
        raise ArtifactError(
            f"{path} holds another network than the factory builds: tensor '{min(differ)}' is in {where}"
        )
    for name in sorted(state):
        kinds = [f"{list(one.shape)} of {str(one.dtype).removeprefix('torch.')}" for one in (state[name], built[name])]
        if kinds[0] != kinds[1]:
            raise ArtifactError(
                f"{path} holds another network than the factory builds: tensor '{name}' is {kinds[0]} in the file,"
                f" {kinds[1]} in the model"
            )
    model.load_state_dict(state, strict=False)
    return model


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise ArtifactError(f"cannot read {path}: {cause.strerror or cause}") from cause


def _read(path: Path) -> _Content | dict[str, Tensor]:
    """What :func:`save` wrote; of a file by anyone else, its tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if FORMAT not in metadata:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            header = json.loads(metadata[FORMAT])
            if header["version"] != VERSION:
                raise ArtifactError(
                    f"{path} has format version {header['version']}, this release reads version {VERSION}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        aliases, shape = _read_aliases(header["aliases"], tensors), _read_shape(header["modules"])
        substitutes = read_substitutes(header.get("substitutes", {}), shape)
        return _Content(
            tensors=tensors,
            aliases=aliases,
            shape=shape,
            fleeting=frozenset(header.get("fleeting", ())),
            kept=_read_names(header.get("kept", {})),
            objects=_read_names(header.get("objects", {})),
            substitutes=substitutes,
            half=header.get("half"),
        )
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as cause:
        raise ArtifactError(f"{path} is damaged or no saved model: {cause}") from cause
    except OSError as cause:
        raise ArtifactError(f"cannot read {path}: {cause.strerror or cause}") from cause


def _read_aliases(aliases: Any, tensors: Container[str]) -> dict[str, str]:
    if not isinstance(aliases, dict) or not all(owner in tensors for owner in aliases.values()):
        raise ValueError("a name stands for a tensor that is not there")
    return aliases


def _read_shape(modules: Any) -> Shape:
    if not isinstance(modules, dict) or not all(isinstance(module, dict) for module in modules.values()):
        raise ValueError("the attributes of its modules are not there")
    return {name: {key: from_json(value) for key, value in module.items()} for name, module in modules.items()}


def _read_names(table: Any) -> dict[str, list[str]]:
    rows = table.values() if isinstance(table, dict) else [None]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in rows):
        raise ValueError("what its modules kept is no table of names")
    return dict(table)


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name, those that share one tensor under each of their names."""
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]


def _fleeting(model: nn.Module) -> list[str]:
    """The names of the buffers that are not persistent."""
    return [
        f"{name}.{leaf}".removeprefix(".")
        for name, module in model.named_modules(remove_duplicate=False)
        for leaf in sorted(module._non_persistent_buffers_set)
        if module._buffers.get(leaf) is not None
    ]


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


def _check_same_network(content: _Content, model: nn.Module, path: Path) -> None:
    """Module by module: the same names, the same types, the same attributes, whatever their values."""
    ours = shape_of(model)
    for name in sorted(content.shape.keys() | ours.keys()):
        saved, built = content.shape.get(name), ours.get(name)
        if saved is None or built is None:
            where = "the model, not in the file" if saved is None else "the file, not in the model"
            raise ArtifactError(f"{path} holds another network than the factory builds: module '{name}' is in {where}")
        if what := difference(saved, built, content.kept.get(name, ()), content.objects.get(name, ())):
            raise ArtifactError(f"{path} holds another network than the factory builds: module '{name}' {what}")
    names = {name for name, _ in _tensors(model)}
    saved_names = content.tensors.keys() | content.aliases.keys()
    if missing := (names ^ saved_names) - {name for name in saved_names if _is_made(name, content, model)}:
        raise ArtifactError(f"{path} holds another network than the factory builds: tensor '{min(missing)}' differs")


def _is_made(name: str, content: _Content, model: nn.Module) -> bool:
    """Whether a tensor of the file is a buffer that only a forward pass makes."""
    place, _, leaf = name.rpartition(".")
    module = dict(model.named_modules(remove_duplicate=False)).get(place)
    return module is not None and (name in content.fleeting or leaf in module._buffers)


def _make_buffers_(model: nn.Module, content: _Content, path: Path) -> None:
    """Register the buffers that a forward pass made, empty."""
    device, built = device_of(model), {name for name, _ in _tensors(model)}
    for name in sorted((content.tensors.keys() | content.aliases.keys()) - built):
        place, _, leaf = name.rpartition(".")
        module = model.get_submodule(place)
        # It may have been a plain None before.
        vars(module).pop(leaf, None)
        try:
            module.register_buffer(leaf, torch.empty(0, device=device), persistent=name not in content.fleeting)
        except KeyError as cause:
            raise ArtifactError(f"{path} is damaged or no saved model: no buffer can be called '{name}'") from cause


def _put_tensors_(model: nn.Module, content: _Content) -> None:
    """Give every parameter and buffer its saved tensor, of whatever size, shared where it was shared."""
    placed: dict[str, Tensor] = {}
    for name, old in _tensors(model):
        owner = content.aliases.get(name, name)
        if owner not in placed:
            # A copy, because the file's bytes lie at odd addresses, and convolutions round differently on those.
            tensor = content.tensors[owner].to(old.device, copy=True)
            if isinstance(old, nn.Parameter):
                # An integer, as the weights of a quantized layer are, cannot have a gradient.
                can_learn = tensor.is_floating_point() or tensor.is_complex()
                tensor = nn.Parameter(tensor, requires_grad=old.requires_grad and can_learn)
            placed[owner] = tensor
        place, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(place), leaf, placed[owner])
