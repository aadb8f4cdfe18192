"""Graphs on disk: the ``.pt2`` archives of ``torch.export``, written small and read without a pickle.

``torch.export.load`` unpickles whatever an archive declares to be pickled, runs the guards it holds as Python source,
and evaluates expressions in it. :func:`from_archive` reads the same files with none of the three: raw tensors, JSON,
operators of known libraries, and shapes that are plain arithmetic; anything else is refused.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from compress.errors import ArtifactError, CompressError, first_line
from compress.exported.capture import quiet_torch
from compress.exported.libraries import require_libraries
from compress.exported.structure import plain_spec

MAGIC = b"PK\x03\x04"
# Below the archive's one folder, which torch calls "archive", or as the file is called that it writes.
_NOTES = "extra/compress.json"
_MODEL = "models/model.json"
_WEIGHTS, _CONSTANTS = "data/weights/", "data/constants/"
_CONFIGS = {_WEIGHTS: "model_weights_config.json", _CONSTANTS: "model_constants_config.json"}

# Where a node was in somebody's source tree; a third of the file, and nobody else's business.
_LOCAL_META = ("stack_trace", "source_fn_stack", "torch_fn", "from_node", "nn_module_stack")

_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchao|torchvision)\.\w+\.\w+"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|torch\.sym_(int|float|max|min|not|ite|sum)|math\.(ceil|floor|trunc|sqrt)"
)
# sympy's own way to write a size, whole: a name between quotes is the only string in it.
_SYMBOL = re.compile(r"Symbol\('[a-z]+\d+'(, \w+=(True|False))*\)")
_ARITHMETIC = re.compile(r"[\w\s+\-*/%(),<>=]*")
_WORD = re.compile(r"[A-Za-z_]\w*")
_FUNCTION = re.compile(
    r"[suz]+\d+|Add|Mul|Pow|Integer|Rational|Max|Min|Mod|FloorDiv|CleanDiv|CeilDiv|PythonMod|ModularIndexing"
)


def to_archive(program: ExportedProgram, notes: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a ``.pt2`` file, which ``torch.export.load`` reads too; equal programs give equal bytes.

    Args:
        program: its nodes lose the notes of where in the source they came from.
        notes: to be read again by :func:`from_archive`, of types that JSON knows.
    """
    for node in program.graph.nodes:
        for key in _LOCAL_META:
            node.meta.pop(key, None)
    # Nobody needs them to run the graph, and they would be pickled.
    inputs, program._example_inputs = program._example_inputs, None
    # Nor has every reader of a file the classes that a model's outputs are of.
    signature = program.module_call_graph[0].signature
    assert signature is not None  # noqa: S101 - the whole model's own
    spec, signature.out_spec = signature.out_spec, plain_spec(signature.out_spec)
    written, packed = io.BytesIO(), io.BytesIO()
    try:
        with quiet_torch():
            torch.export.save(program, written)
    finally:
        program._example_inputs, signature.out_spec = inputs, spec
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(packed, "w") as target:
        records = {record.filename: source.read(record) for record in source.infolist()}
        records[f"archive/{_NOTES}"] = json.dumps(dict(notes or {}), sort_keys=True).encode()
        for name, content in records.items():
            # A date of its own for every record would make equal models unequal files.
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith(".json") else zipfile.ZIP_STORED
            target.writestr(entry, content)
    return packed.getvalue()


def from_archive(content: bytes, place: str) -> tuple[ExportedProgram, dict[str, Any]]:
    """The graph in the bytes of a ``.pt2`` file, and the notes in it.

    Args:
        content: the file.
        place: what to call it in a message.

    Raises:
        ArtifactError: if the file is damaged, or holds what would have to be unpickled or run as source code.
        ConfigError: if a library that defines operators in it is not installed.
    """
    # Seconds of imports, which no reader of another kind of file should wait for.
    from torch._export.serde import schema, serialize  # noqa: PLC0415

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            records = {name.partition("/")[2]: name for name in archive.namelist()}

            def read(name: str) -> bytes:
                return archive.read(records.get(name, name))

            _check_no_pickle(records, place)
            described = json.loads(read(_MODEL))
            _check_harmless(described, place)
            require_libraries(value for key, value in _strings(described) if key == "target")
            # What they check, the shapes of inputs, the operators check again.
            described["guards_code"] = []
            tensors = {folder: _read_tensors(read, folder, place) for folder in _CONFIGS}
            notes = json.loads(read(_NOTES)) if _NOTES in records else {}
        program = serialize._bytes_to_dataclass(schema.ExportedProgram, json.dumps(described).encode())
        graph = serialize.ExportedProgramDeserializer().deserialize(program, tensors[_WEIGHTS], tensors[_CONSTANTS])
    except CompressError:
        raise
    except serialize.SerializeError as cause:
        raise ArtifactError(f"{place} is of another version of torch, or damaged: {first_line(cause)}") from cause
    # zipfile, json and torch each have their own kinds of error for what a damaged file makes of them.
    except Exception as cause:
        raise ArtifactError(f"{place} is damaged or no exported model: {first_line(cause)}") from cause
    return graph, notes


def _read_tensors(read: Callable[[str], bytes], folder: str, place: str) -> dict[str, Tensor]:
    """The weights or the constants by name; those that share bytes in the file share them in memory."""
    from torch._export.serde import schema, serialize  # noqa: PLC0415 - see from_archive

    config = serialize._dict_to_dataclass(  # type: ignore[no-untyped-call]
        schema.PayloadConfig, json.loads(read(folder + _CONFIGS[folder]))
    )
    storages: dict[str, Tensor] = {}
    tensors: dict[str, Tensor] = {}
    for name, payload in config.config.items():
        if payload.use_pickle or payload.tensor_meta is None:
            raise ArtifactError(f"'{name}' would have to be unpickled, which is never done ({place})")
        meta, path = payload.tensor_meta, payload.path_name
        if path not in storages:
            storages[path] = _flat(read(folder + path), serialize._SERIALIZE_TO_TORCH_DTYPE[meta.dtype])
        sizes, strides = ([int(size.as_int) for size in dims] for dims in (meta.sizes, meta.strides))
        tensor = storages[path].as_strided(sizes, strides, int(meta.storage_offset.as_int))
        tensors[name] = torch.nn.Parameter(tensor, requires_grad=meta.requires_grad) if payload.is_param else tensor
    return tensors


def _flat(content: bytes, dtype: torch.dtype) -> Tensor:
    """``[n]`` of the type, at an address where torch would have put it."""
    if not content:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=dtype).clone()


def _check_no_pickle(records: Collection[str], place: str) -> None:
    """Refuse what torch.save wrote, which is an archive too."""
    if _MODEL not in records and "data.pkl" in records:
        raise ArtifactError(
            f"{place} would have to be unpickled, which is never done: write the model's state_dict() with"
            " safetensors.torch.save_file"
        )


def _check_harmless(described: Any, place: str) -> None:
    """Refuse operators that are not operators, and shapes that are not arithmetic: torch would look up and run both."""
    for key, value in _strings(described):
        if key == "target" and not _OPERATOR.fullmatch(value):
            raise ArtifactError(f"operators must be those of torch or torchao, got {value!r} ({place})")
        if key == "expr_str":
            rest = _SYMBOL.sub("s0", value)
            if not _ARITHMETIC.fullmatch(rest) or not all(map(_FUNCTION.fullmatch, _WORD.findall(rest))):
                raise ArtifactError(f"sizes must be arithmetic, got {value!r} ({place})")


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in the JSON, with the key it stands under."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _strings(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)
