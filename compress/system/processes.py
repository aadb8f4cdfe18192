"""Other processes, on every system: when one began, and how it is ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import psutil

# When a process began is told in seconds since the machine did, and that moment moves with the clock that is set.
_SAME_START_S = 2.0


def start_time(pid: int) -> float:
    """When a process began, in seconds since 1970.

    Raises:
        psutil.Error: if there is no such process.
    """
    return float(psutil.Process(pid).create_time())


def still_runs(pid: int, began: float) -> bool:
    """Whether the process that ``began`` then still runs: a later one may have been given the same number."""
    try:
        return abs(start_time(pid) - began) < _SAME_START_S
    except psutil.Error:
        return False


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End ``process``, begun with ``start_new_session``, and whatever it has started, a compiler's workers among them.

    Where the system knows no groups of processes, those that its descendants left behind are missed.
    """
    # Until it is waited for, nobody else can be given its number.
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        with contextlib.suppress(psutil.Error):
            for descendant in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    descendant.kill()
        process.kill()
    process.wait()


def num_usable_cpus() -> int:
    """The processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
