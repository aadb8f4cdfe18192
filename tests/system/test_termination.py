from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from compress.system.termination import TERMINATED_STATUS, Terminated, terminable
from tests.asleep_project import CONFTEST, QUIET, make_asleep_project

# What is timed here runs until it is ended, and says which process that is.
HANGING_NETS = """
import os
import pathlib
import time

import torch


class Hanging(torch.nn.Linear):
    def forward(self, x):
        here = pathlib.Path(__file__).parent
        (here / "starting").write_text(str(os.getpid()))
        (here / "starting").rename(here / "started")
        time.sleep(600)


def net():
    return Hanging(4, 4)
"""

HANGING = """
import torch
import hanging_nets

class HangingWorkload(Workload):
    model_factory = staticmethod(hanging_nets.net)
    model_args = {}
    inputs = torch.zeros(1, 4)

@pytest.fixture(scope="session")
def workload():
    return HangingWorkload()

@pytest.fixture(scope="session")
def dense():
    return hanging_nets.net()

@pytest.fixture(scope="session")
def compressed(recipe):
    return hanging_nets.net()
"""

MEASURED = """
def test_it(gate, {meter}, compressed, dense):
    gate({meter}, compressed, dense)
"""


def wait_until(condition):
    """Give other processes three minutes, which a machine with other work may need to start torch."""
    for _ in range(3600):
        if condition():
            return True
        time.sleep(0.05)
    return False


def is_running(pid):
    """Whether there is such a process, zombies aside."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("meter", "end"),
    [
        ("cpu_latency", signal.SIGTERM),
        pytest.param("cpu_memory", signal.SIGTERM, marks=pytest.mark.nightly),
        pytest.param("cpu_latency", signal.SIGKILL, marks=pytest.mark.nightly),
    ],
)
def test_a_gate_that_is_cancelled_leaves_nothing_behind(pytester, monkeypatch, tmp_path, meter, end):
    """As when CI cancels a job: no process goes on measuring; if it may still do something, no file is left either."""
    project = make_asleep_project(pytester, monkeypatch)
    (project.path / "hanging_nets.py").write_text(HANGING_NETS, encoding="utf-8")
    # Memory, too, is to be measured by the plugin's own fixture.
    pytester.makeconftest(CONFTEST.replace("def cpu_memory", "def of_plain_numbers") + HANGING)
    project.write_tests(MEASURED.format(meter=meter))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = (project.path / "baselines" / "mine.json").read_bytes()
    started = project.path / "started"
    command = [sys.executable, "-m", "pytest", "benchmarks", *QUIET, "--compress-processes=1", "--benchmark-save=mine"]
    with subprocess.Popen(command, cwd=project.path, stdout=subprocess.PIPE, text=True) as run:
        assert wait_until(lambda: started.exists() or run.poll() is not None)
        assert run.poll() is None, run.stdout.read()
        child = int(started.read_text())
        assert is_running(child)
        assert list(tmp_path.glob("compress-measure-*"))
        os.kill(run.pid, end)
        said = run.stdout.read()
    assert wait_until(lambda: not is_running(child))
    assert (project.path / "baselines" / "mine.json").read_bytes() == before
    if end is signal.SIGTERM:
        assert run.returncode == TERMINATED_STATUS == 143
        assert "ended by SIGTERM" in said
        assert list(tmp_path.iterdir()) == []


def test_what_is_terminated_cleans_up():
    """SIGTERM interrupts as Ctrl-C does, and then again does what it did before."""
    cleaned = []

    def work():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:  # noqa: BLE001 - what prepares for errors is not to swallow it
            cleaned.append("swallowed")
        finally:
            cleaned.append("cleaned")

    with pytest.raises(Terminated), terminable():
        work()
    assert cleaned == ["cleaned"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_somebody_else_s_is_kept():
    """Whoever handles SIGTERM goes on doing so."""
    seen = []
    mine = signal.signal(signal.SIGTERM, lambda number, _frame: seen.append(number))
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, mine)
    assert seen == [signal.SIGTERM]


def test_another_thread_is_not_terminable():
    """Only the main thread can handle signals: elsewhere nothing happens, and nothing fails."""
    handlers = []

    def run():
        with terminable():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_DFL]
