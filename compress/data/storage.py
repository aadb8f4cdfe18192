"""What need not be computed twice: tensors and short strings in the user's cache folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
from safetensors.torch import save
from torch import Tensor

from compress.errors import CompressError
from compress.system.files import write_atomically


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], error: type[CompressError]
) -> None:
    """Write a safetensors file in one step, its folder too where that is missing.

    Raises:
        CompressError: of the given kind, if it cannot be written; what was there before is then still there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise error(f"cannot write {path}: {cause.strerror or cause}") from cause
    write_atomically(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}, dict(metadata)), error)


def load_tensors(path: Path, error: type[CompressError]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the metadata of a safetensors file.

    Raises:
        CompressError: of the given kind, if the file is missing or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as cause:
        raise error(f"cannot read {path}: {cause}") from cause
