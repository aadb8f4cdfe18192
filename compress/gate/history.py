"""What baselines said before: every version of their files that git still has, and the files as they stand."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from compress.errors import BaselineError
from compress.gate.baseline import Baseline, load_baseline

# Enough to see where it goes; each takes a call of git.
_MOST = 30
_SECONDS = 20


@dataclass(frozen=True, kw_only=True)
class Version:
    """A baseline as it once was.

    Attributes:
        when: it was committed, or, of a file as it stands, last written.
        label: its name and the commit, or that it is not committed.
        baseline: what it said.
    """

    when: datetime
    label: str
    baseline: Baseline


def baseline_history(folder: Path, *, workload: str, data_sha256: str) -> list[Version]:
    """All versions of all baselines of a workload on the same test data, the oldest first.

    Where there is no git, or the files are not in it, that is the files as they stand. A version that this release
    cannot read is left out: a history is for looking at, and decides nothing.
    """
    versions = [version for path in sorted(folder.glob("*.json")) for version in _versions(path)]
    same = [
        version
        for version in versions
        if version.baseline.workload == workload and version.baseline.data_sha256 == data_sha256
    ]
    return sorted(same, key=lambda version: version.when)


def _versions(path: Path) -> Iterator[Version]:
    """The committed ones, then the file as it stands, if it differs from the last of them."""
    last = b""
    for commit, when in reversed(_commits(path)):
        content = _git(path.parent, "show", f"{commit}:./{path.name}")
        if (baseline := _read(path, content)) is not None:
            last = content
            committed = datetime.fromisoformat(when).astimezone(UTC)
            yield Version(when=committed, label=f"{path.stem} at {commit[:8]}", baseline=baseline)
    content = path.read_bytes()
    if content != last and (baseline := _read(path, content)) is not None:
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        yield Version(when=written, label=f"{path.stem}, not committed", baseline=baseline)


def _commits(path: Path) -> list[tuple[str, str]]:
    """(hash, time) of the commits that changed the file, the newest first."""
    log = _git(path.parent, "log", f"--max-count={_MOST}", "--format=%H %cI", "--", path.name)
    return [(commit, when) for commit, _, when in (line.partition(" ") for line in log.decode().splitlines())]


def _git(folder: Path, *arguments: str) -> bytes:
    """What git prints; nothing where it is missing, slow or knows no such thing."""
    git = shutil.which("git")
    if git is None:
        return b""
    command: Sequence[str] = (git, "-C", str(folder), *arguments)
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_SECONDS)  # noqa: S603 - no shell
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""


def _read(path: Path, content: bytes) -> Baseline | None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        file.write_bytes(content)
        try:
            return replace(load_baseline(file, rows=False), path=path)
        except BaselineError:
            return None
