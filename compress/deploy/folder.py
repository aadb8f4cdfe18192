"""Writing the folder: everything is made and tried in a temporary one beside it, which then takes its name."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.artifacts.runtimes import prepare
from compress.calling.inputs import evaluating
from compress.calling.outputs import selected
from compress.data import ImageData, Normalization
from compress.errors import ArtifactError, ConfigError, ModelError
from compress.exported.executorch import PteModel
from compress.exported.file_model import FileModel
from compress.exported.model import uncompiled
from compress.exported.openvino import OpenVinoModel
from compress.system.files import write_atomically
from compress.workload.workload import Workload

FORMATS: Mapping[str, str] = {"onnxruntime": "model.onnx", "openvino": "model.onnx", "executorch": "model.pte"}
"""The runtimes that a folder can be for, and the file that each runs."""

NUM_EXAMPLES = 10
# Another processor adds in another order; and rounds a value that lies between two integers the other way.
_TOLERANCE, _ROUNDED_TOLERANCE = 1e-3, 0.1
_PROGRAM = Path(__file__).with_name("run.py")

_README = """# {name} for {runtime}

On a Raspberry Pi with its 64-bit system, or any other Linux machine:

    sudo apt install -y python3-venv
    scp -r THIS_FOLDER pi@raspberrypi.local:model    # from the machine that has this folder
    ssh pi@raspberrypi.local
    python3 -m venv venv && venv/bin/pip install {requires}
    venv/bin/python model/run.py check
    venv/bin/python model/run.py predict images.npy  # uint8 [n, height, width, channels]

`check` runs {count} test inputs, says how far their outputs are from those of the model that this file was made of, and
how long one input takes on one thread. `manifest.json` holds sizes and hashes of all files, the names of the classes,
and what is done to pixels before they go in.
"""


def export(model: nn.Module, workload: Workload, to: Path, *, runtime: str = "onnxruntime") -> dict[str, Any]:
    """Write ``model`` with all that it takes to run it elsewhere into the new folder ``to``; the manifest in it.

    The folder is whole or not there. The file is tried on ten test inputs under its runtime before it is written.

    Args:
        model: of the workload, dense or compressed; or a file of one, as :func:`compress.load` gives it.
        workload: its test inputs, the names of its classes, and what is done to pixels.
        to: must not exist yet.
        runtime: one of :data:`FORMATS`.

    Raises:
        ConfigError: if ``runtime`` is unknown or not installed, or the folder is there already.
        ModelError: if the model does not run under it, or answers otherwise there.
        ArtifactError: if the folder cannot be written.
    """
    if runtime not in FORMATS:
        raise ConfigError(f"a folder can be for {', '.join(FORMATS)}, got {runtime!r}")
    if not isinstance(workload.dataset, ImageData):
        raise ConfigError(f"a folder is for classifiers of labelled images, workload {workload.name!r} has other data")
    if to.exists():
        raise ConfigError(f"a folder is written anew, but {to} is there already")
    inputs = torch.cat([images for images, _ in _first_batches(workload)])[:NUM_EXAMPLES].contiguous()
    file = prepare(model.cpu(), inputs[:1], runtime=runtime)
    assert isinstance(file, FileModel)  # noqa: S101 - what these runtimes make
    expected = _expected(model, file, inputs, workload)
    found = [file._run([one[None]]) for one in inputs]
    place = _place_of(found[0], selected(file(inputs[:1]), workload.outputs))
    tolerance = _tolerance(torch.cat([outputs[place] for outputs in found]), expected, runtime)
    contents = {
        FORMATS[runtime]: file.content,
        "run.py": _PROGRAM.read_bytes(),
        "inputs.npy": _npy(inputs),
        "expected.npy": _npy(expected),
    }
    manifest = {
        "format": 1,
        "workload": workload.name,
        "runtime": runtime,
        "requires": [runtime, "numpy"],
        "model": FORMATS[runtime],
        "precision": file.precision if isinstance(file, OpenVinoModel) else "",
        "delegation": file.delegation if isinstance(file, PteModel) else "",
        "input": {"shape": list(inputs[:1].shape), "dtype": "float32"},
        "output": place,
        "labels": list(workload.dataset.classes),
        "preprocessing": _preprocessing(workload),
        "tolerance": tolerance,
    }
    readme = _README.format(name=workload.name, runtime=runtime, requires=f"{runtime} numpy", count=len(inputs))
    _write(to, manifest, {**contents, "README.md": readme.encode()})
    return manifest


def _first_batches(workload: Workload) -> list[tuple[Tensor, Tensor]]:
    return [next(iter(workload.dataset.test.batches(min(NUM_EXAMPLES, len(workload.dataset.test)))))]


def _expected(model: nn.Module, file: FileModel, inputs: Tensor, workload: Workload) -> Tensor:
    """What the model itself puts out, in eager mode; of a file, which torch cannot run, what the file does."""
    reference = file if isinstance(model, FileModel) else uncompiled(model)
    with evaluating(reference), torch.inference_mode():
        logits: Tensor = selected(reference(inputs), workload.outputs)
    return logits.float()


def _place_of(outputs: Any, logits: Tensor) -> int:
    """Which of the file's outputs the logits are."""
    places = (place for place, one in enumerate(outputs) if one.shape == logits.shape and one.equal(logits))
    place = next(places, None)
    if place is None:
        raise ModelError(
            "the outputs that count must be one of those that the file puts out as they are, they are none"
        )
    return place


def _tolerance(found: Tensor, expected: Tensor, runtime: str) -> float:
    """How far outputs may lie from the expected ones on another machine.

    Raises:
        ModelError: if they lie further here, or give another answer.
    """
    changed = int((found.argmax(dim=1) != expected.argmax(dim=1)).sum())
    difference = float((found - expected).abs().max() / expected.abs().max())
    if changed or not difference <= _ROUNDED_TOLERANCE:
        raise ModelError(
            f"under {runtime} {changed} of {len(found)} test inputs get another answer,"
            f" and outputs are {difference:.1%} off"
        )
    return _TOLERANCE if difference <= _TOLERANCE / 10 else _ROUNDED_TOLERANCE


def _preprocessing(workload: Workload) -> dict[str, Any] | None:
    """What the test split does to pixels; None where it does not say."""
    split = workload.dataset.test
    normalization = getattr(split, "normalization", None)
    if not isinstance(normalization, Normalization):
        return None
    return {
        "formula": "(pixel / 255 - mean) / std for each channel, then [n, h, w, c] to [n, c, h, w]",
        "mean": list(normalization.mean),
        "std": list(normalization.std),
    }


def _npy(tensor: Tensor) -> bytes:
    written = io.BytesIO()
    np.save(written, tensor.numpy(), allow_pickle=False)
    return written.getvalue()


def _write(to: Path, manifest: dict[str, Any], contents: Mapping[str, bytes]) -> None:
    manifest["files"] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(contents.items())
    }
    temporary = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
        for name, content in contents.items():
            write_atomically(temporary / name, content, ArtifactError)
        text = json.dumps(manifest, indent=2, ensure_ascii=False)
        write_atomically(temporary / "manifest.json", f"{text}\n".encode(), ArtifactError)
        temporary.chmod(0o755)
        temporary.rename(to)
        temporary = None
    except OSError as cause:
        raise ArtifactError(f"cannot write {to}: {cause.strerror or cause}") from cause
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
