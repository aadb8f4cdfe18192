"""Models compiled ahead of time by AOTInductor: a file that any process on this machine loads in milliseconds.

Compiling takes seconds to minutes, and every fresh process that measures a model would begin with it. So a package is
kept in the user's cache folder, under a hash of all that determines its code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from compress.calling.inputs import Inputs
from compress.errors import ModelError
from compress.exported.capture import capture, quiet_torch
from compress.system.cpu import cpu_class, cpu_name
from compress.system.files import forget_oldest, made_cache_folder

_SETTINGS = {
    # Only with the weights as constants do int8 and layout rewrites happen.
    "freezing": True,
    # Without its names for them torch.profiler does not see the kernels that Inductor writes itself.
    "cpp.enable_kernel_profile": True,
}


# Of packages in the cache: some hundred of a small network; one more takes about a minute to make again.
KEPT_BYTES = 4_000_000_000


def package_of(model: nn.Module, inputs: Inputs) -> Path:
    """The file of ``model`` compiled for inputs of these shapes and as many threads as now, made if there is none yet.

    The packages that were not used for longest are deleted where all together grow beyond :data:`KEPT_BYTES`.

    Args:
        model: in eval mode, on the device of the inputs.
        inputs: what it is called with.

    Raises:
        ModelError: if the model cannot be captured, or the cache folder not be written.
    """
    program = capture(model, inputs, fixed=True)
    path = made_cache_folder(ModelError) / f"package-{_digest(program, inputs)[:32]}.pt2"
    if zipfile.is_zipfile(path):
        path.touch()
    # One that is damaged is made anew.
    else:
        # In the same folder, so that it comes to its place in one step, whoever else compiles the same meanwhile.
        with tempfile.TemporaryDirectory(prefix=".package-", dir=path.parent) as folder:
            made = str(Path(folder, "model.pt2"))
            # Where gradients are on, Inductor does not freeze, and finds none of the patterns of int8.
            with quiet_torch(), torch.no_grad():
                torch._inductor.aoti_compile_and_package(program, package_path=made, inductor_configs=dict(_SETTINGS))
            Path(made).replace(path)
        forget_oldest(path.parent, "package-*.pt2", KEPT_BYTES)
    return path


class Package:
    """A package made ready to be called, with what :func:`package_of` was given or alike.

    Attributes:
        path: its file, of the user's own cache, for the machine code in it is run as it is.

    Args:
        path: the file.
        scratch: where it is unpacked for as long as it is used; None for the system's temporary folder.

    Raises:
        RuntimeError: if the file is no package.
    """

    def __init__(self, path: Path, scratch: Path | None = None) -> None:
        self.path = path
        with _unpacked_in(scratch):
            self._run: Callable[..., Any] = torch._inductor.aoti_load_package(str(path))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(*args, **kwargs)


def _digest(program: ExportedProgram, inputs: Inputs) -> str:
    """SHA-256, in hex, of the graph, its tensors, and whatever else the compiler looks at."""
    told = {
        "graph": program.graph_module.code,
        "signature": str(program.graph_signature),
        "inputs": [_layout(tensor) for tensor in inputs.tensors],
        "threads": torch.get_num_threads(),
        "cpu": [cpu_name(), cpu_class(torch.get_num_threads())],
        "torch": torch.__version__,
        "settings": _SETTINGS,
    }
    total = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, value in sorted({**program.state_dict, **program.constants}.items()):
        if isinstance(value, Tensor):
            total.update(f"{name} {_layout(value)}".encode())
            flat = value.detach().cpu().contiguous().flatten()
            total.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        else:
            total.update(f"{name} {value}".encode())
    return total.hexdigest()


def _layout(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} {list(tensor.stride())} {tensor.device}"


@contextlib.contextmanager
def _unpacked_in(folder: Path | None) -> Iterator[None]:
    """The loader, which is C++, asks the environment where temporary files go."""
    before = os.environ.get("TMPDIR")
    if folder is not None:
        os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        if before is not None:
            os.environ["TMPDIR"] = before
        elif folder is not None:
            del os.environ["TMPDIR"]
