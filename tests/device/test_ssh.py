"""Against a real sshd on the loopback address, with keys made for the test; COMPRESS_TEST_SSHD names another one."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compress.device.address import parse_address
from compress.device.connection import Device
from compress.device.measuring import remote_latency
from compress.errors import MeasureError
from compress.measure.children import Conditions
from compress.measure.latency import Effort
from tests.device.places import wait_for
from tests.workloads import tiny_net

_SSHD = os.environ.get("COMPRESS_TEST_SSHD") or shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")

pytestmark = pytest.mark.skipif(
    _SSHD is None or shutil.which("ssh-keygen") is None, reason="openssh-server is not installed"
)

# Of a key of the test's own, and of nothing that this machine has.
_SERVER = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PermitRootLogin prohibit-password
SetEnv TMPDIR={folder}/there PYTHONPATH={path}
"""
_CLIENT = """
Host board
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/user
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known
    GlobalKnownHostsFile none
    StrictHostKeyChecking yes
"""


def key(path: Path) -> str:
    """A new key's public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)  # noqa: S607 - the system's
    return path.with_suffix(".pub").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Its folder, with the client's configuration in it; "there" is where temporary files go at its end."""
    folder = tmp_path_factory.mktemp("ssh")
    (folder / "there").mkdir()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    host = key(folder / "host")
    key(folder / "user")
    path = os.pathsep.join(entry for entry in sys.path if "site-packages" in entry)
    (folder / "server").write_text(_SERVER.format(port=port, folder=folder, path=path), encoding="utf-8")
    (folder / "config").write_text(_CLIENT.format(port=port, folder=folder, user=getpass.getuser()), encoding="utf-8")
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host}", encoding="utf-8")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    process = subprocess.Popen([_SSHD, "-D", "-e", "-f", folder / "server"], stderr=subprocess.PIPE)
    try:
        assert wait_for(lambda: listening(port) or process.poll() is not None)
        assert process.poll() is None, process.stderr.read().decode()
        yield folder
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def listening(port: int) -> bool:
    """Whether anybody takes connections there."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def address(server, monkeypatch):
    """The board, by its name in the client's own configuration."""
    monkeypatch.setenv("COMPRESS_SSH_COMMAND", f"ssh -F {server}/config")
    return parse_address(f"ssh://board{sys.executable}")


def left(server: Path) -> list[Path]:
    """What lies at the other end."""
    return list((server / "there").iterdir())


def test_two_models_are_timed_through_ssh(server, address, tiny_dense, tiny_images):
    """Names, keys and ports are those of the user's configuration; nothing stays there."""
    pytest.importorskip("onnxruntime")
    conditions = Conditions(model_factory=tiny_net, example_input=tiny_images[:1], runtime="onnxruntime")
    with Device(address) as device:
        measured = remote_latency(
            tiny_dense, tiny_dense, conditions, device=device, processes=2, effort=Effort(seconds=0.0)
        )
        assert len(left(server)) == 1
    assert measured.run_lengths == (30, 30)
    assert wait_for(lambda: left(server) == [])


@pytest.mark.parametrize("victim", ["ssh", "runner"])
def test_nothing_stays_after_a_kill_of_either_side(victim, server, address):
    """SIGKILL, which nobody can prepare for."""
    device = Device(address)
    device.send(b"model", ".onnx")
    (folder,) = left(server)
    if victim == "ssh":
        os.killpg(device._process.pid, signal.SIGKILL)
    else:
        os.kill(runner_of(folder), signal.SIGKILL)
    with pytest.raises(MeasureError, match=r"^the connection to the device board was lost"):
        device.ask({"do": "health"})
    assert wait_for(lambda: left(server) == [])


def runner_of(folder: Path) -> int:
    """The process that the janitor of a folder waits for."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            words = (entry / "cmdline").read_bytes().split(b"\0") if (entry / "cmdline").exists() else []
            if os.fsencode(folder) in words:
                status = (entry / "status").read_text(encoding="utf-8")
                return int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))
    raise AssertionError(f"no janitor of {folder}")


def test_a_host_key_that_changed_is_one_sentence(server, address, tmp_path):
    """Not believed, and not measured."""
    known = server / "known"
    before = known.read_text(encoding="utf-8")
    place = before.partition(" ")[0]
    known.write_text(f"{place} {key(tmp_path / 'other')}", encoding="utf-8")
    try:
        with (
            Device(address) as device,
            pytest.raises(MeasureError, match=r"^the device board could not be reached: Host key verification failed$"),
        ):
            device.ask({"do": "health"})
    finally:
        known.write_text(before, encoding="utf-8")


def test_a_key_that_is_not_known_there_is_one_sentence(server, address, tmp_path):
    """As ssh puts it, and at once: nobody is asked for a password."""
    key(tmp_path / "user")
    config = (server / "config").read_text(encoding="utf-8").replace(f"{server}/user\n", f"{tmp_path}/user\n")
    (tmp_path / "config").write_text(config, encoding="utf-8")
    command = [word.replace(f"{server}/config", f"{tmp_path}/config") for word in address.command]
    stranger = type(address)(name="board", command=tuple(command), python=address.python)
    started = time.monotonic()
    with (
        Device(stranger) as device,
        pytest.raises(MeasureError, match=r"^the device board could not be reached: .*Permission denied"),
    ):
        device.ask({"do": "health"})
    assert time.monotonic() - started < 60
