from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from compress.device import connection
from compress.device.address import parse_address
from compress.device.connection import Device
from compress.errors import MeasureError
from compress.system.cpu import cpu_class
from tests.device.places import this_machine, wait_for


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Where the other end keeps its files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def left(folder: Path) -> list[Path]:
    """What a runner has in ``folder``."""
    return list(folder.glob("compress-device-*"))


def test_the_class_of_the_machine_is_read_there():
    """Of its own flags; of this machine it is this machine's."""
    with Device(this_machine()) as device:
        assert device.cpu_class(3) == cpu_class(3)
        assert "numpy" in device.machine["packages"]
        board = {"Features": "fp asimd asimddp", "CPU implementer": "0x41", "CPU part": "0xd0b"}
        device._machine |= {"cpuinfo": board, "machine": "aarch64"}
        assert device.cpu_class(4) == "cpu-armv8.2_dotprod-arm41.d0b-4t"


def test_a_file_goes_there_once_and_goes_away_with_the_connection(place):
    """Bytes of any kind, under the name of their hash."""
    content = bytes(range(256)) * 5000
    with Device(this_machine()) as device:
        name = device.send(content, ".bin")
        assert device.send(content, ".bin") == name
        (folder,) = left(place)
        assert (folder / name).read_bytes() == content
        assert folder.stat().st_mode & 0o077 == 0
    assert left(place) == []


def test_a_runner_that_is_killed_leaves_nothing(place):
    """Something else waits for its end."""
    device = Device(this_machine())
    device.send(b"model", ".onnx")
    assert len(left(place)) == 1
    os.killpg(device._process.pid, signal.SIGKILL)
    with pytest.raises(MeasureError, match=r"^the connection to the device here was lost: "):
        device.ask({"do": "health"})
    assert wait_for(lambda: left(place) == [])


def test_a_client_that_is_killed_leaves_nothing(place):
    """The runner's input ends then."""
    script = f"""
import sys, time
from compress.device.address import Address
from compress.device.connection import Device
device = Device(Address(name="here", command=("sh", "-c"), python={sys.executable!r}))
device.send(b"model", ".onnx")
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as client:
        assert client.stdout.readline() == b"ready\n"
        assert len(left(place)) == 1
        client.kill()
    assert wait_for(lambda: left(place) == [])


def test_a_runner_that_hears_nothing_for_long_ends(place, monkeypatch, tmp_path):
    """As behind a connection that was unplugged, whose end nobody tells."""
    impatient = tmp_path / "runner.py"
    source = connection._RUNNER.read_text(encoding="utf-8")
    impatient.write_text(re.sub(r"PATIENCE_S = \S+", "PATIENCE_S = 0.3", source), encoding="utf-8")
    monkeypatch.setattr(connection, "_RUNNER", impatient)
    device = Device(this_machine())
    assert device.machine
    assert wait_for(lambda: left(place) == [])
    device.close()


def test_this_end_tells_that_it_is_there(monkeypatch, tmp_path):
    """So that a runner does not give up while models are trained."""
    impatient = tmp_path / "runner.py"
    source = connection._RUNNER.read_text(encoding="utf-8")
    impatient.write_text(re.sub(r"PATIENCE_S = \S+", "PATIENCE_S = 20.0", source), encoding="utf-8")
    monkeypatch.setattr(connection, "_RUNNER", impatient)
    monkeypatch.setattr(connection, "_HEARTBEAT_S", 0.01)
    written = []
    write = Device._write
    monkeypatch.setattr(Device, "_write", lambda device, content: (written.append(content), write(device, content)))
    with Device(this_machine()) as device:
        assert device.machine
        assert wait_for(lambda: written.count(b"\n") > 3)
        assert "governor" in device.ask({"do": "health"})


def test_a_full_disk_is_one_sentence_and_the_connection_goes_on():
    """The bytes that found no room do not count as requests."""
    with Device(this_machine(command=("sh", "-c", 'ulimit -f 64; eval "$0"'))) as device:
        with pytest.raises(MeasureError, match=r"^the device here could not measure: File too large$"):
            device.send(b"x" * 3_000_000, ".onnx")
        assert "governor" in device.ask({"do": "health"})


def test_a_device_that_does_not_answer_is_given_up(monkeypatch):
    """In one sentence, and what was started is ended."""
    monkeypatch.setattr(connection, "_BEGIN_TIMEOUT_S", 0.2)
    monkeypatch.setattr(connection, "_END_TIMEOUT_S", 0.2)
    device = Device(this_machine(command=("sh", "-c", "sleep 60")))
    with pytest.raises(MeasureError, match=r"^the device here did not answer within 0\.2 s$"):
        device.ask({"do": "health"})
    assert device._process is None
    # Nor does it answer the next test, for the same reason.
    with pytest.raises(MeasureError, match=r"^the device here did not answer within 0\.2 s$"):
        device.ask({"do": "health"})


def test_an_interpreter_that_is_not_there_is_said():
    """With its path."""
    with (
        Device(this_machine(python="/gone/python")) as device,
        pytest.raises(MeasureError, match=r"^the device here could not run /gone/python: .*not found"),
    ):
        device.ask({"do": "health"})


def test_a_runtime_that_is_not_there_is_said_with_the_command_that_installs_it():
    """And so is numpy."""
    with Device(this_machine(python=sys.executable)) as device:
        device.machine["packages"].clear()
        with pytest.raises(
            MeasureError,
            match=rf"^numpy and openvino must be installed on the device here: {sys.executable} -m pip install numpy ",
        ):
            device.require("openvino")


@pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed")
def test_a_host_that_cannot_be_reached_is_said(monkeypatch):
    """What ssh says of it."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        monkeypatch.setenv("COMPRESS_SSH_COMMAND", "ssh -F none")
        with (
            Device(parse_address(f"ssh://nobody@127.0.0.1:{port}")) as device,
            pytest.raises(
                MeasureError, match=rf"^the device nobody@127\.0\.0\.1:{port} could not be reached: .*refused"
            ),
        ):
            device.ask({"do": "health"})


def test_a_command_that_is_not_there_is_said():
    """One sentence."""
    with (
        Device(this_machine(command=("gone-ssh",))) as device,
        pytest.raises(MeasureError, match=r"^gone-ssh cannot be run: No such file or directory$"),
    ):
        device.ask({"do": "health"})
