"""What single test examples gave, kept beside a baseline: ``baselines/<name>.npz``, numbers in 16 bits, no pickle.

A column of whole numbers that span less than 65,536 is kept exactly, any other one in as many steps. The hash of each
entry's rows stands in the baseline, so that a change of the file can be seen in its diff.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.errors import BaselineError

# What takes more room, deflated and both models together, is no file to be reviewed: its hash and quantiles are kept.
BYTES_PER_EXAMPLE = 20
_LEAST_BYTES = 4096
_LEVELS = 65_535
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Of a column of equal numbers: what differs by less is the same.
_RESOLUTION = 1e-6

Quantiles = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptRows:
    """The rows of the dense and the compressed model, in steps of a grid.

    Attributes:
        steps: ``[n, width]`` of each: how many steps a number lies above the column's lowest.
        grid: ``[2, width]`` of each: the lowest number and the size of a step.
    """

    steps: tuple[NDArray[np.uint16], NDArray[np.uint16]]
    grid: tuple[NDArray[np.float64], NDArray[np.float64]]

    @property
    def rows(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The numbers, as well as they are known."""
        return self._row(0), self._row(1)

    @property
    def sha256(self) -> str:
        """Of all that is kept, in hex."""
        digest = hashlib.sha256()
        for steps, grid in zip(self.steps, self.grid, strict=True):
            digest.update(np.ascontiguousarray(steps, dtype="<u2").tobytes())
            digest.update(np.ascontiguousarray(grid, dtype="<f8").tobytes())
        return digest.hexdigest()

    @property
    def is_small(self) -> bool:
        """Whether they are to be kept whole."""
        content = b"".join(steps.tobytes() for steps in self.steps)
        return len(zlib.compress(content)) <= max(_LEAST_BYTES, BYTES_PER_EXAMPLE * len(self.steps[0]))

    @property
    def quantiles(self) -> Quantiles:
        """Of the first column of both models: the least, the quartiles, the largest."""
        dense, compressed = (np.quantile(rows[:, 0], _QUANTILES).tolist() for rows in self.rows)
        return tuple(dense), tuple(compressed)

    def as_kept(self, rows: NDArray[np.float64], model: int) -> NDArray[np.float64]:
        """Other rows as rough as those of that model, so that the same numbers do not differ."""
        low, step = self.grid[model]
        kept: NDArray[np.float64] = low + np.round((rows - low) / step) * step
        return kept

    def _row(self, model: int) -> NDArray[np.float64]:
        low, step = self.grid[model]
        rows: NDArray[np.float64] = low + self.steps[model] * step
        return rows


def keep(dense: NDArray[np.float64], compressed: NDArray[np.float64]) -> KeptRows:
    """Rows ``[n, width]`` of both models in steps."""
    (first, one), (second, other) = _in_steps(dense), _in_steps(compressed)
    return KeptRows(steps=(first, second), grid=(one, other))


def write_rows(entries: Mapping[tuple[str, str], KeptRows]) -> bytes:
    """The content of a file of rows, by recipe and metric; the same rows give the same bytes."""
    arrays: dict[str, NDArray[np.uint16] | NDArray[np.float64]] = {}
    for (recipe, metric), kept in sorted(entries.items()):
        for model, steps, grid in zip(("dense", "compressed"), kept.steps, kept.grid, strict=True):
            arrays[f"{recipe}/{metric}/{model}"] = steps
            arrays[f"{recipe}/{metric}/{model}/grid"] = grid
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def read_rows(path: Path, wanted: Mapping[tuple[str, str], str], num_examples: int) -> dict[tuple[str, str], KeptRows]:
    """The rows of these entries, each held against its hash.

    Raises:
        BaselineError: if the file is missing or damaged, or holds other rows than the baseline says.
    """
    if not wanted:
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: _entry(file, key, sha256, num_examples, path) for key, sha256 in wanted.items()}
    except FileNotFoundError:
        raise BaselineError(f"a baseline's rows lie beside it, and there is no such file ({path})") from None
    except (OSError, ValueError, KeyError, zlib.error) as cause:
        raise BaselineError(f"the rows of a baseline cannot be read: {cause} ({path})") from cause


def _entry(
    file: Mapping[str, NDArray[np.uint16]], key: tuple[str, str], sha256: str, num_examples: int, path: Path
) -> KeptRows:
    name = "/".join(key)
    first, second = file[f"{name}/dense"], file[f"{name}/compressed"]
    one, other = file[f"{name}/dense/grid"], file[f"{name}/compressed/grid"]
    kept = KeptRows(steps=(first, second), grid=(one.astype(np.float64), other.astype(np.float64)))
    if kept.sha256 != sha256 or any(len(steps) != num_examples for steps in kept.steps):
        raise BaselineError(f"the rows of {name} are not those of their baseline; record it again ({path})")
    return kept


def _in_steps(rows: NDArray[np.float64]) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    low, high = rows.min(axis=0), rows.max(axis=0)
    whole = (rows == np.round(rows)).all(axis=0) & (high - low <= _LEVELS)
    least = _RESOLUTION * np.maximum(1.0, np.abs(low))
    step = np.where(whole, 1.0, np.maximum((high - low) / _LEVELS, np.where(high > low, 0.0, least)))
    return np.round((rows - low) / step).astype(np.uint16), np.stack([low, step])
