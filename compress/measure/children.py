"""Fresh processes that measure: started, asked, and gone again whatever happens; see :mod:`compress.measure.child`."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from compress.artifacts import artifact
from compress.artifacts.runtimes import PACKAGING, Call, prepare
from compress.calling.inputs import Inputs, as_json, inputs_of
from compress.calling.pairs import Pairs, pinned_threads
from compress.errors import ArtifactError, MeasureError
from compress.exported.file_model import FileModel
from compress.exported.openvino import OpenVinoModel
from compress.exported.packages import Package
from compress.system.processes import kill_group

# Compiling a large network for a runtime is the longest that any answer takes.
TIMEOUT_S = 300.0

_BEGIN_TIMEOUT_S = 120.0
_SIGKILL = 9


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under which circumstances two models are measured, in words that a fresh process understands.

    Attributes:
        model_factory: builds the network that both were before compression; a fresh process imports it by its name.
        model_args: its keyword arguments, of types that JSON knows.
        example_input: what both are called with, as :func:`compress.calling.inputs.inputs_of` takes it.
        runtime: what executes them, one of :data:`~compress.artifacts.runtimes.RUNTIMES`.
        threads: how many CPU threads an operation may use.
        packages: what the runtime has made of models so far, where it makes files of them; they are not made again.
    """

    model_factory: Callable[..., nn.Module]
    example_input: Any
    model_args: Mapping[str, Any] = field(default_factory=dict)
    runtime: str = "eager"
    threads: int = 1
    packages: MutableMapping[nn.Module, Path | FileModel] = field(default_factory=dict)

    @property
    def inputs(self) -> Inputs:
        """The example input on the CPU, where all of it is measured."""
        return inputs_of(self.example_input).to(torch.device("cpu"))


class RebuildError(MeasureError):
    """A fresh process cannot make these models again."""


class Child:
    """A process that runs :mod:`compress.measure.child`; use it as a context manager, or call :meth:`close`.

    Args:
        purpose: what it is for, in messages: "time", "memory".
        threads: how many CPU threads an operation may use.
        environment: variables that it has beside this process's own.
    """

    def __init__(self, purpose: str, *, threads: int = 1, environment: Mapping[str, str] | None = None) -> None:
        self.purpose = purpose
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "compress.measure.child"],
            env={**os.environ, **(environment or {}), "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            # Whatever processes it starts itself, a compiler's workers among them, can so be ended with it.
            start_new_session=True,
        )
        # Windows can wait for a pipe with a time limit in no other way.
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        self.ask({"do": "begin", "threads": threads, "path": [entry for entry in sys.path if entry]})
        self._begun = False

    def ask(self, request: Mapping[str, Any]) -> None:
        """Send a request; :meth:`answer` waits for what comes of it."""
        assert self.process.stdin is not None  # noqa: S101 - it was asked for
        # One that has died says so when its answer is waited for.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The answer to the oldest request that has none yet.

        Raises:
            MeasureError: if the process could not do it, was killed, or did not answer in time.
        """
        if not self._begun:
            self._begun = True
            self._next(_BEGIN_TIMEOUT_S)
        return self._next(TIMEOUT_S)

    def end_requests(self) -> None:
        """Let it end once it has answered what it was asked."""
        assert self.process.stdin is not None  # noqa: S101 - it was asked for
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def close(self) -> None:
        """End it and all that it started."""
        kill_group(self.process)
        # What it wrote is closed by who reads it.
        self._reader.join()
        for stream in (self.process.stdin, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self, timeout_s: float) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._read_line(timeout_s))
        if "error" in answer:
            kind = RebuildError if answer.get("rebuilding") else MeasureError
            raise kind(f"the child process that measures {self.purpose} failed: {answer['error']}")
        return answer

    def _listen(self) -> None:
        """Hand on the lines that it writes; an empty one last, when it has ended."""
        assert self.process.stdout is not None  # noqa: S101 - it was asked for
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(b"")

    def _read_line(self, timeout_s: float) -> bytes:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            self.close()
            raise MeasureError(
                f"the child process that measures {self.purpose} was stopped after {timeout_s:g} s"
            ) from None
        if not line.endswith(b"\n"):
            # Whoever asks once more is told the same.
            self._lines.put(b"")
            raise MeasureError(f"the child process that measures {self.purpose} {self._epitaph()}")
        return line

    def _epitaph(self) -> str:
        """How it ended."""
        status = self.process.wait()
        if status < 0:
            reason = ", as when memory runs out" if status == -_SIGKILL else ""
            return f"was killed by signal {-status}{reason}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"failed with status {status}: {lines[-1] if lines else 'no message'}"


class Children:
    """A few fresh processes that time models, started when first needed and kept for the next pair of models.

    Args:
        count: how many.
        threads: how many CPU threads an operation may use.
    """

    def __init__(self, count: int, *, threads: int = 1) -> None:
        self.count = count
        self.threads = threads
        self._children: list[Child] = []

    def load(self, request: Mapping[str, Any]) -> float:
        """Have every process load the same two models; milliseconds of one pair of calls, in the slowest of them.

        Raises:
            MeasureError: if one of them could not, a RebuildError if the models cannot be rebuilt; all are gone then.
        """
        while len(self._children) < self.count:
            self._children.append(Child("time", threads=self.threads))
        return max(float(answer["pair_ms"]) for answer in self._ask_all(request))

    def take_pairs(self, index: int, count: int, *, profiled: bool = False) -> Pairs:
        """So many (dense, compressed) pairs of milliseconds from the process of that index.

        Args:
            index: which process.
            count: how many pairs.
            profiled: whether it is the CPU time that torch.profiler sums, and not what the clock says.

        Raises:
            MeasureError: if it could not; all of them are gone then.
        """
        with self._all_or_none():
            self._children[index].ask({"do": "profile_pairs" if profiled else "take_pairs", "count": count})
            pairs = self._children[index].answer()["pairs"]
        return tuple((dense, compressed) for dense, compressed in pairs)

    def close(self) -> None:
        """End them all; they start again when they are needed."""
        while self._children:
            self._children.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask_all(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        with self._all_or_none():
            for child in self._children:
                child.ask(request)
            return [child.answer() for child in self._children]

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """A process that failed, or that waits with half an answer, serves no further measurement."""
        try:
            yield
        except BaseException:
            self.close()
            raise


@contextmanager
def saved(models: Mapping[str, nn.Module], conditions: Conditions) -> Iterator[dict[str, Any]]:
    """Keep models on disk for a while; the part of a request by which a child finds them again.

    A runtime that compiles ahead of time makes a file of each here, once, that every child loads as it is; for any
    other, a child builds the models again.

    Args:
        models: the role of each in the request ("dense", "compressed", "model") and the model.
        conditions: how they were built and what they are called with.

    Raises:
        RebuildError: if a fresh process could not import the factory, or a model cannot be saved.
        ModelError: if a model does not run under the runtime.
    """
    with tempfile.TemporaryDirectory(prefix="compress-measure-") as folder:
        inputs = str(Path(folder, "inputs.safetensors"))
        structure, tensors = as_json(inputs_of(conditions.example_input))
        save_file({str(i): tensor.detach().cpu().contiguous() for i, tensor in enumerate(tensors)}, inputs)
        yield {
            "inputs": inputs,
            "runtime": conditions.runtime,
            # Files keep no strides, and those decide which kernels run.
            "channels_last": [role for role, model in models.items() if _is_channels_last(*model.parameters())],
            "inputs_structure": structure,
            "channels_last_inputs": [i for i, tensor in enumerate(tensors) if _is_channels_last(tensor)],
            **(_packaged(models, conditions, folder) or _to_rebuild(models, conditions, folder)),
        }


def _packaged(models: Mapping[str, nn.Module], conditions: Conditions, folder: str) -> dict[str, Any]:
    """The file that each model runs from, and where it may be unpacked; nothing where the runtime has no such files."""
    if conditions.runtime not in PACKAGING:
        return {}
    with pinned_threads(conditions.threads):
        for model in models.values():
            ready(model, conditions)
    files = {role: conditions.packages[model] for role, model in models.items()}
    # A process that is killed cannot clean up: what it unpacks goes with the request.
    return {
        "packages": folder,
        "bfloat16": [role for role, file in files.items() if isinstance(file, OpenVinoModel) and file.in_bfloat16],
        **{role: _path_of(file, folder, role) for role, file in files.items()},
    }


def _path_of(file: Path | FileModel, folder: str, role: str) -> str:
    if isinstance(file, Path):
        return str(file)
    path = Path(folder, role)
    path.write_bytes(file.content)
    return str(path)


def _to_rebuild(models: Mapping[str, nn.Module], conditions: Conditions, folder: str) -> dict[str, Any]:
    """The factory, and the weights of each model."""
    factory = importable_name(conditions.model_factory)
    paths = {role: str(Path(folder, f"{role}.safetensors")) for role in models}
    try:
        for role, model in models.items():
            artifact.save(model, paths[role])
    except ArtifactError as error:
        raise RebuildError(str(error)) from error
    return {"packages": "", "factory": factory, "args": dict(conditions.model_args), **paths}


def ready(model: nn.Module, conditions: Conditions) -> Call:
    """The model, moved to the CPU, as the runtime executes it.

    Raises:
        ConfigError: if what the runtime needs is not installed.
        ModelError: if the model does not run under it.
    """
    made = conditions.packages.get(model)
    if made is not None:
        return Package(made) if isinstance(made, Path) else made
    inputs = conditions.inputs
    call = prepare(model.cpu(), inputs, runtime=conditions.runtime)
    if isinstance(call, Package):
        conditions.packages[model] = call.path
    elif isinstance(call, FileModel):
        conditions.packages[model] = call
    return call


def _is_channels_last(*tensors: Tensor) -> bool:
    """Whether any of them is laid out pixel by pixel, not channel by channel."""
    return any(
        tensor.dim() == 4  # noqa: PLR2004 - what the format is defined for
        and not tensor.is_contiguous()
        and tensor.is_contiguous(memory_format=torch.channels_last)
        for tensor in tensors
    )


def importable_name(function: Callable[..., nn.Module]) -> str:
    """``module:name``, by which a fresh process finds the function again.

    Raises:
        RebuildError: if it would not.
    """
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    try:
        found = getattr(importlib.import_module(module), name, None) if name.isidentifier() else None
    except (ImportError, ValueError):
        found = None
    if found is not function or module == "__main__":
        raise RebuildError(
            f"model_factory must be a function that a fresh process can import by its name, got {function!r}"
        )
    return f"{module}:{name}"
