"""One writer of a file at a time."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from compress.errors import BaselineError
from compress.system.files import made_cache_folder


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Keep this user's other writers of the same file waiting until the block is left.

    The lock is a file in the user's cache folder, not beside ``target``: it may stay, where nobody commits it.

    Raises:
        BaselineError: if the cache folder cannot be made.
        OSError: if it takes no lock file.
    """
    folder = made_cache_folder(BaselineError) / "locks"
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256(str(target.resolve()).encode()).hexdigest()[:32]
    with FileLock(folder / f"{name}.lock"):
        yield
