"""Measures models on the machine it is sent to; it needs Python, numpy and a runtime there, and no PyTorch.

This one file is all that goes there. It is started by way of its own text on standard input, keeps everything in a
temporary folder, and reads requests, one JSON object a line, until its input ends or is silent for too long; then, and
in whatever other way it ends, the folder goes. Each request is answered with one line. Models are called in fresh
processes, which run this same file.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import importlib.util
import json
import os
import platform
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable

PATIENCE_S = 300.0
CHILD_TIMEOUT_S = 300.0
WARMUP_CALLS = 5
ROUNDS = 9
_PR_SET_PDEATHSIG = 1


# --- what is known of the machine -------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the class of the machine is read from, and its software."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        first = ""
    entries = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    runtimes = [name for name in ("numpy", "onnxruntime", "openvino", "executorch") if importlib.util.find_spec(name)]
    return {
        "cpuinfo": entries,
        "machine": platform.machine(),
        "cpu": _read("/proc/device-tree/model") or entries.get("model name") or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "packages": runtimes,
    }


def health() -> dict[str, Any]:
    """Clock, governor, temperature and throttling; None for what this machine does not tell."""
    zones = [_read(path) for path in glob.glob("/sys/class/thermal/thermal_zone*/temp")]
    degrees = [int(zone) / 1000 for zone in zones if zone.lstrip("-").isdecimal()]
    cpu = "/sys/devices/system/cpu/cpu0/cpufreq/"
    clock = _read(cpu + "scaling_cur_freq")
    return {
        "governor": _read(cpu + "scaling_governor") or None,
        "clock_mhz": int(clock) / 1000 if clock.isdecimal() else None,
        "temperature_c": max(degrees) if degrees else None,
        "throttled": _throttled(),
    }


def _throttled() -> int | None:
    """The bits of ``vcgencmd get_throttled`` on a Raspberry Pi: 0-3 what is the case now, 16-19 what has been."""
    if not shutil.which("vcgencmd"):
        return None
    told = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=10, check=False).stdout
    try:
        return int(told.partition("=")[2].strip() or "x", 0)
    except ValueError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


# --- a fresh process that calls models --------------------------------------------------------------------------------


def child() -> None:
    """Answer requests on standard input; whatever a runtime prints goes to standard error."""
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    state: dict[str, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"load": _load, "take_pairs": _take_pairs, "memory": _memory}[request["do"]](request, state)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)


def opened(request: dict[str, Any], role: str) -> Callable[[], object]:
    """The model of that role as a call without arguments."""
    import numpy as np

    path, threads, runtime = request[role], request["threads"], request["runtime"]
    inputs = [np.load(name) for name in request["inputs"]]
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        given = dict(zip([one.name for one in session.get_inputs()], inputs))
        return lambda: session.run(None, given)
    if runtime == "openvino":
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        model.reshape({one.get_any_name(): list(value.shape) for one, value in zip(model.inputs, inputs)})
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": request["precision"][role],
        }
        compiled = core.compile_model(model, "CPU", settings).create_infer_request()
        return lambda: compiled.infer(inputs, share_inputs=True)
    import torch  # the Python package of ExecuTorch needs it
    from executorch.runtime import Runtime

    library = Runtime.get()
    library._legacy_module._unsafe_reset_threadpool(threads)
    program = library.load_program(path)
    method = program.load_method("forward")
    tensors = [torch.from_numpy(value) for value in inputs]
    return lambda: (program, method.execute(tensors))


def _load(request: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Make both models ready; milliseconds of a pair of calls."""
    state.clear()
    calls = [opened(request, role) for role in ("dense", "compressed")]
    for call in calls:
        for _ in range(WARMUP_CALLS):
            call()
    state["calls"] = calls
    return {"pair_ms": statistics.median(sum(map(_elapsed_ms, calls)) for _ in range(3))}


def _take_pairs(request: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """So many pairs of times, the dense model first in every other one."""
    dense, compressed = state["calls"]
    dense(), compressed()
    pairs = []
    for number in range(request["count"]):
        if number % 2 == 0:
            first = _elapsed_ms(dense)
            pairs.append((first, _elapsed_ms(compressed)))
        else:
            second = _elapsed_ms(compressed)
            pairs.append((_elapsed_ms(dense), second))
    return {"pairs": pairs}


def _memory(request: dict[str, Any], _state: dict[str, Any]) -> dict[str, Any]:
    """How far the resident set of this process rises during a call, beyond the loaded model."""
    call = opened(request, "model")
    for _ in range(WARMUP_CALLS):
        call()
    deltas = []
    for _ in range(ROUNDS):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status_bytes("VmRSS")
        call()
        deltas.append(max(0, _status_bytes("VmHWM") - before))
    return {"peak_delta_bytes": int(statistics.median(deltas)), "resident_bytes": _status_bytes("VmRSS")}


def _elapsed_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


# --- the process that is connected ------------------------------------------------------------------------------------


class Children:
    """The fresh processes that time models at the moment."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.running: list[tuple[subprocess.Popen[bytes], BinaryIO]] = []

    def start(self, environment: dict[str, str] | None = None) -> int:
        """One more; its place among them."""
        errors = open(os.path.join(self.folder, f"errors-{len(self.running)}"), "w+b")
        program = [sys.executable, os.path.join(self.folder, "runner.py"), "child"]
        process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # What a runtime leaves in the folder for temporary files goes with this one.
            env={**os.environ, **(environment or {}), "TMPDIR": self.folder},
        )
        self.running.append((process, errors))
        return len(self.running) - 1

    def ask(self, place: int, request: dict[str, Any]) -> None:
        """Send a request to one of them."""
        process, _ = self.running[place]
        assert process.stdin is not None
        # One that has died says why when its answer is waited for.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()

    def answer(self, place: int) -> dict[str, Any]:
        """What one of them answers."""
        process, errors = self.running[place]
        assert process.stdout is not None
        deadline, line = time.monotonic() + CHILD_TIMEOUT_S, b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RuntimeError(f"a process did not answer within {CHILD_TIMEOUT_S:g} s")
            read = os.read(process.stdout.fileno(), 1 << 16)
            if not read:
                status = process.wait()
                errors.seek(0)
                told = errors.read().decode(errors="replace").strip().splitlines()
                how = f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
                raise RuntimeError(f"a process {how}: {told[-1] if told else 'no message'}")
            line += read
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        """End them all."""
        while self.running:
            process, errors = self.running.pop()
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, errors):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()


def serve(source: bytes) -> None:
    """Answer what is asked on standard input, from a folder that goes when this process does."""
    os.umask(0o077)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    folder = tempfile.mkdtemp(prefix="compress-device-")
    # A process that is killed cleans up nothing: this one waits for its end, whatever it is, and removes the folder.
    janitor = subprocess.Popen(
        ["sh", "-c", 'cat > /dev/null; rm -rf -- "$1"', "sh", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    children = Children(folder)
    try:
        Path(folder, "runner.py").write_bytes(source)
        requests = _Lines(sys.stdin.fileno())
        while True:
            line = requests.line()
            if not line:
                break
            if line.strip():
                _respond(json.loads(line), requests, children)
    finally:
        children.close()
        assert janitor.stdin is not None
        janitor.stdin.close()
        janitor.wait()


def _respond(request: dict[str, Any], requests: _Lines, children: Children) -> None:
    """One line on standard output."""
    try:
        answer = _REQUESTS[request["do"]](request, requests, children)
    except Exception as error:
        children.close()
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        answer = {"error": text or type(error).__name__}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _begin(_request: dict[str, Any], _requests: _Lines, _children: Children) -> dict[str, Any]:
    return {**machine(), **health()}


def _file(request: dict[str, Any], requests: _Lines, children: Children) -> dict[str, Any]:
    """Take the bytes that follow the request; all of them, also where they cannot be kept."""
    left: int = request["bytes"]
    failure: OSError | None = None
    file: BinaryIO | None = None
    path = os.path.join(children.folder, os.path.basename(request["name"]))
    try:
        file = open(path, "wb")
    except OSError as error:
        failure = error
    while left:
        some = requests.some(min(left, 1 << 20))
        left -= len(some)
        try:
            if file is not None and failure is None:
                file.write(some)
                file.flush()
        except OSError as error:
            failure = error
    if file is not None:
        try:
            file.close()
        except OSError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return {}


def _placed(request: dict[str, Any], children: Children) -> dict[str, Any]:
    """The same request with paths for names."""
    placed: dict[str, Any] = {
        role: os.path.join(children.folder, request[role])
        for role in ("dense", "compressed", "model")
        if role in request
    }
    inputs = [os.path.join(children.folder, name) for name in request["inputs"]]
    return {**request, **placed, "inputs": inputs}


def _load_all(request: dict[str, Any], _requests: _Lines, children: Children) -> dict[str, Any]:
    """Fresh processes, all with the same two models."""
    children.close()
    for _ in range(request["count"]):
        children.start()
    for place in range(request["count"]):
        children.ask(place, _placed({**request, "do": "load"}, children))
    return {"pair_ms": max(children.answer(place)["pair_ms"] for place in range(request["count"]))}


def _pairs_of(request: dict[str, Any], _requests: _Lines, children: Children) -> dict[str, Any]:
    children.ask(request["index"], {"do": "take_pairs", "count": request["count"]})
    return children.answer(request["index"])


def _memory_of(request: dict[str, Any], _requests: _Lines, children: Children) -> dict[str, Any]:
    """Of one model, in a process of its own, in which a block that is freed goes back to the system at once."""
    children.close()
    place = children.start({"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0"})
    children.ask(place, _placed({**request, "do": "memory"}, children))
    answer = children.answer(place)
    children.close()
    return answer


def _rest(_request: dict[str, Any], _requests: _Lines, children: Children) -> dict[str, Any]:
    """End all processes, and say how the machine is."""
    children.close()
    return health()


class _Lines:
    """Lines and bytes of standard input; none where nothing comes for too long, as after a broken connection."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.unread = b""

    def line(self) -> bytes:
        """The next line, b"" at the end."""
        while b"\n" not in self.unread:
            read = self._read()
            if not read:
                return b""
            self.unread += read
        line, _, self.unread = self.unread.partition(b"\n")
        return line + b"\n"

    def some(self, count: int) -> bytes:
        """Up to so many bytes."""
        if not self.unread:
            self.unread = self._read()
            if not self.unread:
                sys.exit(1)
        some, self.unread = self.unread[:count], self.unread[count:]
        return some

    def _read(self) -> bytes:
        ready, _, _ = select.select([self.descriptor], [], [], PATIENCE_S)
        return os.read(self.descriptor, 1 << 16) if ready else b""


_REQUESTS: dict[str, Callable[[dict[str, Any], _Lines, Children], dict[str, Any]]] = {
    "begin": _begin,
    "file": _file,
    "load": _load_all,
    "take_pairs": _pairs_of,
    "memory": _memory_of,
    "health": lambda _request, _requests, _children: health(),
    "rest": _rest,
}


if __name__ == "__main__" and sys.argv[1:] == ["child"]:
    child()
