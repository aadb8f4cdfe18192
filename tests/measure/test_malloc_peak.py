"""In a process of its own, for glibc reads when it starts which blocks become mappings."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from compress.measure import malloc_peak
from compress.measure.malloc_peak import ENVIRONMENT

# Takes no torch: what it allocates is what it says.
SCRIPT = """
import ctypes
from compress.measure.malloc_peak import peak_malloc_bytes

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def blocks(*sizes):
    for block in [libc.malloc(size) for size in sizes]:
        libc.free(block)

blocks(50_000_000)  # larger than all that follows
print(peak_malloc_bytes(lambda: None))
print(peak_malloc_bytes(lambda: blocks(1_000_000)))
print(peak_malloc_bytes(lambda: blocks(1_000_000, 2_000_000, 30_000)))
print(peak_malloc_bytes(lambda: (blocks(1_000_000), blocks(2_000_000))))
print(peak_malloc_bytes(lambda: blocks(80_000_000)))
print(peak_malloc_bytes(lambda: blocks(1_000_000)))
"""


@pytest.mark.skipif(os.confstr("CS_GNU_LIBC_VERSION") is None, reason="not glibc")
def test_the_most_that_lives_at_once_is_counted_to_the_page():
    """Whatever was larger before; what is freed before the next block is taken counts no more."""
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, check=True, text=True)
    peaks = list(map(int, run.stdout.split()))
    expected = [0, 1_000_000, 3_030_000, 2_000_000, 80_000_000, 1_000_000]
    assert all(0 <= peak - size <= 3 * 4096 + 100 for peak, size in zip(peaks, expected, strict=True)), peaks


def test_another_c_library_is_not_asked(monkeypatch):
    """Where there is no mallinfo2 there is no number, and nothing is run."""
    monkeypatch.setattr(malloc_peak.ctypes, "CDLL", lambda _: object())
    assert malloc_peak.peak_malloc_bytes(lambda: pytest.fail("was called")) is None
