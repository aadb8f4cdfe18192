"""One connection to a device, kept open: requests go out as lines of JSON, files as bytes, answers come as lines.

What measures there is the file ``runner.py``, sent through the same connection and never installed. It ends, with all
that it wrote, where the connection does; and this end lets it know now and then that it is still there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from compress.device.address import Address
from compress.errors import MeasureError
from compress.system.cpu import class_of

TIMEOUT_S = 330.0
_BEGIN_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 10.0
_HEARTBEAT_S = 30.0
_RUNNER = Path(__file__).with_name("runner.py")
# ssh's own status for a connection that could not be made, or broke.
_NO_CONNECTION = 255

# What waits for the runner's own text, byte by byte, for what follows it is for the runner.
_BOOTSTRAP = """import os
b = b""
while len(b) < {size}:
    r = os.read(0, {size} - len(b))
    if not r:
        raise SystemExit(1)
    b += r
g = {{"__name__": "runner"}}
exec(compile(b, "runner.py", "exec"), g)
g["serve"](b)
"""


class Device:
    """A machine that measures; connected when it is first asked, and gone with :meth:`close`.

    Args:
        address: how it is reached.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the connection
        self._unread = b""
        self._end = ""
        self._sent: set[str] = set()
        self._machine: dict[str, Any] = {}
        self._writing = threading.Lock()
        self._ended = threading.Event()

    @property
    def machine(self) -> Mapping[str, Any]:
        """What the machine says of itself; connects if need be."""
        self._connect()
        return self._machine

    def cpu_class(self, threads: int) -> str:
        """``cpu-armv8.2_dotprod-arm41.d0b-4t``: as :func:`compress.system.cpu.cpu_class`, of what is read there."""
        return class_of(self.machine["cpuinfo"], self.machine["machine"], threads)

    def ask(self, request: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """What the device answers.

        Raises:
            MeasureError: if it could not do it, cannot be reached, or does not answer in time.
        """
        self._connect()
        return self._answered(request, b"", timeout_s)

    def send(self, content: bytes, ending: str) -> str:
        """Have the device keep a file, once; its name there.

        Raises:
            MeasureError: as :meth:`ask`, also where its disk is full.
        """
        self._connect()
        name = hashlib.sha256(content).hexdigest()[:32] + ending
        if name not in self._sent:
            self._answered({"do": "file", "name": name, "bytes": len(content)}, content, TIMEOUT_S)
            self._sent.add(name)
        return name

    def require(self, runtime: str) -> None:
        """Refuse to measure under what is not installed there.

        Raises:
            MeasureError: with the command that installs it.
        """
        missing = [name for name in ("numpy", runtime) if name not in self.machine["packages"]]
        if missing:
            raise MeasureError(
                f"{' and '.join(missing)} must be installed on the device {self.address.name}:"
                f" {self.address.python} -m pip install {' '.join(missing)}"
            )

    def close(self) -> None:
        """End the connection; what was started there cleans up and ends."""
        self._ended.set()
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - they were asked for
            with contextlib.suppress(BrokenPipeError), self._writing:
                process.stdin.close()
            try:
                process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> None:
        if self._process is not None:
            return
        if self._ended.is_set():
            raise MeasureError(self._end or f"the connection to the device {self.address.name} has ended")
        source = _RUNNER.read_bytes()
        there = f"exec {shlex.quote(self.address.python)} -c {shlex.quote(_BOOTSTRAP.format(size=len(source)))}"
        try:
            self._process = subprocess.Popen(  # noqa: S603 - what the user told to run
                [*self.address.command, there],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                # Ctrl-C reaches the whole foreground: this end says itself when it is over.
                start_new_session=True,
            )
        except OSError as cause:
            raise MeasureError(f"{self.address.command[0]} cannot be run: {cause.strerror or cause}") from cause
        self._write(source)
        self._machine = self._answered({"do": "begin"}, b"", _BEGIN_TIMEOUT_S)
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._ended.wait(_HEARTBEAT_S):
            self._write(b"\n")

    def _answered(self, request: Mapping[str, Any], content: bytes, timeout_s: float) -> dict[str, Any]:
        try:
            self._write(json.dumps(request).encode() + b"\n" + content)
            answer: dict[str, Any] = json.loads(self._read_line(timeout_s))
        except BaseException as cause:
            # Whoever has half an answer to come serves no further request.
            self._end = str(cause)
            self.close()
            raise
        if "error" in answer:
            raise MeasureError(f"the device {self.address.name} could not measure: {answer['error']}")
        return answer

    def _write(self, content: bytes) -> None:
        # One that has died says so when its answer is waited for.
        with contextlib.suppress(BrokenPipeError, ValueError), self._writing:
            process = self._process
            if process is not None and process.stdin is not None:
                process.stdin.write(content)
                process.stdin.flush()

    def _read_line(self, timeout_s: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101, PT018 - it is connected
        deadline, descriptor = time.monotonic() + timeout_s, self._process.stdout.fileno()
        while b"\n" not in self._unread:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise MeasureError(f"the device {self.address.name} did not answer within {timeout_s:g} s")
            read = os.read(descriptor, 1 << 16)
            if not read:
                raise MeasureError(self._epitaph())
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _epitaph(self) -> str:
        assert self._process is not None  # noqa: S101 - it was connected
        status = self._process.wait()
        self._errors.seek(0)
        told = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines() if line.strip()]
        # ssh frames some of what it says in rows of @.
        told = [line for line in told if line.strip("@ ")]
        reason = told[-1].rstrip(".") if told else f"status {status} and no message"
        if self._machine:
            return f"the connection to the device {self.address.name} was lost: {reason}"
        what = "could not be reached" if status == _NO_CONNECTION else f"could not run {self.address.python}"
        return f"the device {self.address.name} {what}: {reason}"
