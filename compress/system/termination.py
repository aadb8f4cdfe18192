"""A process that is told to end cleans up first: its children go, and its temporary files."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

# As a shell reports a process that a signal has ended.
TERMINATED_STATUS = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM has come: as Ctrl-C, so that nothing that is prepared for errors takes it for one."""


@contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM raise :class:`Terminated` here, where it would end the process at once and leave everything lying.

    Whoever has a handler of their own keeps it, and only a process's main thread can have one.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated("ended by SIGTERM")
