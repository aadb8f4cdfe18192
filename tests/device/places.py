"""Devices that are this machine, reached by a shell."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from compress.device.address import Address


def this_machine(*, command: tuple[str, ...] = ("sh", "-c"), python: str = sys.executable) -> Address:
    """Reached as by ssh: through a command that is given a line for a shell."""
    return Address(name="here", command=command, python=python)


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether it has come true within that time, which only a failure takes."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
