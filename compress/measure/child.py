"""A fresh process that rebuilds models and measures them: ``python -m compress.measure.child``; no part of the API.

It reads one JSON object a line from its standard input and answers each with one on what its standard output was when
it began; whatever the model itself prints goes to standard error. It ends where its input does, and with its parent.
Fresh, because where a process's code and memory happen to lie changes how fast it is, and because what is resident in
a process that has run tests says nothing of a model.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from torch import nn

    from compress.calling.inputs import Inputs
    from compress.calling.pairs import Call, Timer

WARMUP_CALLS = 3
# The kernel's counters lag by up to some hundred kilobytes on each core; the median of several rounds does not.
ROUNDS = 9

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer every request on standard input, then go."""
    _die_with_parent()
    # A model may print whatever it likes: answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    state = _State()
    for line in sys.stdin:
        _answer(line, state, answers)
    # Taking the interpreter down touches pages of its own, which a sampler outside would take for the model's.
    os._exit(0)


class _RebuildError(Exception):
    """The models of the request cannot be made again here; the cause says why."""


class _State:
    """What the process has loaded."""

    def __init__(self) -> None:
        # Forward passes of the dense and of the compressed model.
        self.pair: tuple[Call, Call] | None = None
        # By role: what determined the last model that was compiled for it, and its forward pass.
        self.compiled: dict[str, tuple[str, Call]] = {}


def _answer(line: str, state: _State, answers: TextIO) -> None:
    request: dict[str, Any] = json.loads(line)
    try:
        answer = _REQUESTS[request["do"]](request, state)
    except _RebuildError as error:
        answer = {"error": _in_words(error.__cause__ or error), "rebuilding": True}
    except Exception as error:  # noqa: BLE001 - whatever goes wrong with somebody's model is the answer
        answer = {"error": _in_words(error)}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _in_words(error: BaseException) -> str:
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[-1]}"


def _begin(request: Mapping[str, Any], _state: _State) -> dict[str, Any]:
    """Import what takes long, on the parent's own import path, so that a factory beside its tests is found here too."""
    sys.path.extend(entry for entry in request["path"] if entry not in sys.path)

    import torch  # noqa: PLC0415 - only once the path is the parent's

    from compress.measure import latency  # noqa: F401, PLC0415

    torch.set_num_threads(request["threads"])
    return {}


def _load(request: Mapping[str, Any], state: _State) -> dict[str, Any]:
    """Rebuild both models, warm them, and say how long a pair of calls takes."""
    from compress.calling.pairs import pair_ms  # noqa: PLC0415

    # What was loaded before is to make room first.
    state.pair = None
    dense, compressed = (_forward(request, role, state) for role in ("dense", "compressed"))
    state.pair = dense, _slowed(compressed, request["slowdown"])
    return {"pair_ms": pair_ms(*_timers(state))}


def _forward(request: Mapping[str, Any], role: str, state: _State) -> Call:
    """A forward pass of the model of that role, compiled anew only if it is not what was compiled last for that role.

    So a second look at the same pair waits for no compiler, and neither do further models for the dense one.
    """
    from compress.measure.latency import warmed  # noqa: PLC0415

    def prepared() -> Call:
        inputs = _inputs(request)
        return warmed(_ready(request, role, inputs), inputs)

    # Nothing but a compiler takes so long that the memory is well spent.
    if request["runtime"] == "eager" or request["packages"]:
        return prepared()
    determined_by = _determined_by(request, role)
    if role not in state.compiled or state.compiled[role][0] != determined_by:
        state.compiled.pop(role, None)
        state.compiled[role] = determined_by, prepared()
    return state.compiled[role][1]


def _determined_by(request: Mapping[str, Any], role: str) -> str:
    """All that a forward pass depends on; of weights and inputs the digests."""
    told = {name: request[name] for name in ("factory", "args", "runtime", "inputs_structure", "channels_last_inputs")}
    files = [hashlib.sha256(Path(request[name]).read_bytes()).hexdigest() for name in (role, "inputs")]
    return json.dumps([told, role in request["channels_last"], files], sort_keys=True)


def _take_pairs(request: Mapping[str, Any], state: _State) -> dict[str, Any]:
    """Times of so many more pairs."""
    from compress.calling.pairs import take_pairs  # noqa: PLC0415

    dense, compressed = _timers(state)
    # While others took their turn, the caches have forgotten both models.
    take_pairs(dense, compressed, 1)
    return {"pairs": take_pairs(dense, compressed, request["count"])}


def _profile_pairs(request: Mapping[str, Any], state: _State) -> dict[str, Any]:
    """CPU time of so many pairs, as torch.profiler sums it."""
    from compress.measure.latency import profiled_on_cpu  # noqa: PLC0415

    return {"pairs": profiled_on_cpu(*_loaded(state), request["count"])}


def _loaded(state: _State) -> tuple[Call, Call]:
    if state.pair is None:
        raise RuntimeError("no models are loaded")
    return state.pair


def _timers(state: _State) -> tuple[Timer, Timer]:
    from compress.calling.pairs import elapsed_ms  # noqa: PLC0415

    dense, compressed = _loaded(state)
    return partial(elapsed_ms, dense), partial(elapsed_ms, compressed)


def _measure_memory(request: Mapping[str, Any], _state: _State) -> dict[str, Any]:
    """How much is allocated during a forward pass of one model, and how high the resident set stood at most."""
    import torch  # noqa: PLC0415

    from compress.measure.malloc_peak import peak_malloc_bytes  # noqa: PLC0415

    inputs = _inputs(request)
    model = _ready(request, "model", inputs)
    with torch.inference_mode():
        for _ in range(WARMUP_CALLS):
            inputs.lend_to(model)
        process_peak = _status_bytes("VmHWM")
        resident = statistics.median(_peak_delta_bytes(lambda: inputs.lend_to(model)) for _ in range(ROUNDS))
        process_peak = max(process_peak, _status_bytes("VmHWM"))
        # By then freed blocks lie where they will lie from now on.
        allocated = [peak_malloc_bytes(lambda: inputs.lend_to(model)) for _ in range(ROUNDS)][1:]
    known = [peak for peak in allocated if peak is not None]
    return {
        "peak_delta_bytes": int(statistics.median_low(known) if known else resident),
        "resident_delta_bytes": int(resident),
        "process_peak_bytes": process_peak,
    }


_REQUESTS: dict[str, Callable[[Mapping[str, Any], _State], dict[str, Any]]] = {
    "begin": _begin,
    "load": _load,
    "take_pairs": _take_pairs,
    "profile_pairs": _profile_pairs,
    "measure_memory": _measure_memory,
}


def _ready(request: Mapping[str, Any], role: str, inputs: Inputs) -> Callable[..., Any]:
    """The model of that role as the runtime executes it."""
    from compress.artifacts.runtimes import call_of, prepare  # noqa: PLC0415

    if request["packages"]:
        scratch, bfloat16 = Path(request["packages"]), role in request["bfloat16"]
        return call_of(Path(request[role]), request["runtime"], bfloat16=bfloat16, scratch=scratch)
    return prepare(_model(request, role), inputs, runtime=request["runtime"])


def _model(request: Mapping[str, Any], role: str) -> nn.Module:
    """The saved model of that role, rebuilt by the factory that the request names."""
    import torch  # noqa: PLC0415

    from compress.artifacts import artifact  # noqa: PLC0415

    module, _, name = request["factory"].partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
        model: nn.Module = artifact.load(request[role], lambda: factory(**request["args"]))
    except Exception as error:
        raise _RebuildError from error
    if role in request["channels_last"]:
        model = model.to(memory_format=torch.channels_last)
    return model


def _inputs(request: Mapping[str, Any]) -> Inputs:
    """The example inputs themselves, for values may decide which way a forward pass takes."""
    import torch  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    from compress.calling.inputs import from_json  # noqa: PLC0415

    stored = load_file(request["inputs"])
    tensors = [stored[str(i)] for i in range(len(stored))]
    for i in request["channels_last_inputs"]:
        tensors[i] = tensors[i].contiguous(memory_format=torch.channels_last)
    return from_json(request["inputs_structure"], tensors)


def _slowed(call: Call, slowdown: float) -> Call:
    """``call``, taking longer by that fraction of what it takes each time: the gate's own sparring partner."""
    if not slowdown:
        return call

    def slow() -> object:
        start = time.perf_counter()
        result = call()
        end = time.perf_counter()
        until = end + slowdown * (end - start)
        while time.perf_counter() < until:
            pass
        return result

    return slow


def _peak_delta_bytes(call: Callable[[], object]) -> int:
    """How far the resident set rises above where it stands now, while ``call`` runs."""
    # Writing 5 resets the high-water mark to what is resident now (man 5 proc_pid_clear_refs).
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status_bytes("VmRSS")
    call()
    return max(0, _status_bytes("VmHWM") - before)


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, in whatever way it does; elsewhere its input ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
