"""Files that are whole or not there: every file this package writes goes through here."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import platformdirs

from compress.errors import CompressError


def cache_folder() -> Path:
    """The user's cache directory for this package, which may not exist yet; ``XDG_CACHE_HOME`` moves it."""
    return platformdirs.user_cache_path("pytest-compress")


def made_cache_folder(error: type[CompressError]) -> Path:
    """The same, made if it does not exist.

    Raises:
        CompressError: of the given kind, if it cannot be made.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise error(f"cannot make the cache folder {folder}: {cause.strerror or cause}") from cause
    return folder


def write_atomically(path: Path, content: bytes, error: type[CompressError]) -> None:
    """Put ``content`` at ``path`` in one step; until then, and if anything fails, what was there stays there.

    Raises:
        CompressError: of the given kind, if the disk is full, the folder is missing or may not be written.
    """
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            # mkstemp makes files private; give this one the mode any new file would have had. Windows has none.
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), 0o666 & ~_umask())
            file.write(content)
            file.flush()
            # Without it a power cut after the rename could leave an empty file under the final name.
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as cause:
        raise error(f"cannot write {path}: {cause.strerror or cause}") from cause
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()


def forget_oldest(folder: Path, pattern: str, limit: int) -> None:
    """Delete files of a cache, those written or touched longest ago first, until what is left holds ``limit`` bytes.

    What another process has deleted meanwhile is gone all the same, and what may not be deleted stays.
    """
    found = []
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    left = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if left <= limit:
            break
        with contextlib.suppress(OSError):
            path.unlink()
            left -= size


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
