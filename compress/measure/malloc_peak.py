"""How many bytes glibc has handed out at most while something ran: exact where the kernel's counters only come close.

Needs a process started with ``ENVIRONMENT``, in which every larger block is a mapping of its own: glibc keeps the most
bytes that such blocks ever came to. That number never falls, so before a measurement a block that nobody touches is
taken which makes up what is missing to it; and free room left between smaller blocks is filled, lest a larger block
find a place there, where it would not be counted.
"""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
from collections.abc import Callable

_THRESHOLD = 16384

# What glibc reads when it starts. A mapping goes back to the kernel as soon as it is freed, which makes the peak of
# live tensors visible in the resident set, too. Without padding, the end of the heap has no room that a larger block
# could take: by default it grows by 128 KiB for any small block.
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(_THRESHOLD),
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_TOP_PAD_": "0",
    "MALLOC_MMAP_MAX_": "1000000",
}

_FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
_LARGEST_ROOM = 1 << 20
_MOST_FILLERS = 4096


class _Info(ctypes.Structure):
    """glibc's ``struct mallinfo2``: ``hblkhd`` are the bytes of mappings now."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _FIELDS)


def peak_malloc_bytes(call: Callable[[], object]) -> int | None:
    """The most bytes of larger blocks that live at once while ``call`` runs, beyond those that live before it.

    Returns:
        None where the C library is not glibc, or does not have the numbers.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2") or not hasattr(libc, "malloc_stats"):
        return None
    libc.mallinfo2.restype = _Info
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    fillers = _fill_free_room(libc)
    most = _most_mapped(libc)
    missing = None if most is None else most - libc.mallinfo2().hblkhd
    ballast = libc.malloc(missing) if missing else None
    try:
        before = libc.mallinfo2().hblkhd
        call()
        after = _most_mapped(libc)
    finally:
        for block in (*fillers, ballast):
            libc.free(block)
    return None if after is None or not before else max(0, after - before)


def _fill_free_room(libc: ctypes.CDLL) -> list[int]:
    """Take blocks of falling sizes until each of them would be a mapping."""
    blocks: list[int] = []
    size = _LARGEST_ROOM
    while size >= _THRESHOLD and len(blocks) < _MOST_FILLERS:
        mapped = libc.mallinfo2().hblkhd
        block = libc.malloc(size)
        if libc.mallinfo2().hblkhd > mapped:
            libc.free(block)
            size //= 2
        else:
            blocks.append(block)
    return blocks


def _most_mapped(libc: ctypes.CDLL) -> int | None:
    """What glibc prints, and tells in no other way, as the most bytes that mappings ever came to."""
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            libc.malloc_stats()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        file.seek(0)
        found = re.search(rb"max mmap bytes\s*=\s*(\d+)", file.read())
    return int(found[1]) if found else None
