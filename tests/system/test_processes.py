from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from compress.system.processes import kill_group, num_usable_cpus, start_time, still_runs

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("groups", [True, False])
def test_a_process_is_ended_with_all_that_it_started(monkeypatch, groups):
    """By its group, or by its descendants where the system knows no groups."""
    if not groups:
        monkeypatch.delattr(os, "killpg", raising=False)
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, start_new_session=True)
    with process.stdout as lines:
        descendant = psutil.Process(int(lines.readline()))
        kill_group(process)
    assert process.returncode is not None
    psutil.wait_procs([descendant], timeout=10)
    assert not descendant.is_running() or descendant.status() == psutil.STATUS_ZOMBIE
    # Ending what is gone already is no error.
    kill_group(process)


def test_a_process_is_known_by_when_it_began():
    """Another one of its number is another one."""
    began = start_time(os.getpid())
    assert still_runs(os.getpid(), began)
    assert not still_runs(os.getpid(), began - 60)
    assert not still_runs(2**22 + 1, began)


def test_there_is_a_processor_on_every_system(monkeypatch):
    """Those that this process may use, where the system says so, else all."""
    assert 1 <= num_usable_cpus() <= os.cpu_count()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert num_usable_cpus() == os.cpu_count()
