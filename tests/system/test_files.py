from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from compress.errors import ArtifactError, BaselineError
from compress.system.files import forget_oldest, write_atomically


def names(folder):
    """Everything in ``folder``, hidden files too."""
    return sorted(entry.name for entry in folder.iterdir())


def no_space(*_):
    """What the system says when the disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_content_is_written(tmp_path):
    """What is given is what is in the file, and nothing else is in the folder."""
    write_atomically(tmp_path / "file", b"\0new\n", ArtifactError)
    assert (tmp_path / "file").read_bytes() == b"\0new\n"
    assert names(tmp_path) == ["file"]


def test_an_existing_file_is_replaced_whole(tmp_path):
    """A shorter content leaves nothing of a longer old one; who has the old file open still reads the old one."""
    path = tmp_path / "file"
    path.write_bytes(b"old and longer")
    with path.open("rb") as reader:
        write_atomically(path, b"new", ArtifactError)
        assert reader.read() == b"old and longer"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_file_has_the_mode_of_any_new_file(tmp_path, mask):
    """Others may read the file as the process's mask says, and the mask is left as it was."""
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", b"new", ArtifactError)
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("step", ["fsync", "fchmod"])
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step):
    """Whatever step runs out of space, the old file is still there, byte for byte, and the temporary one is gone."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, step, no_space)
    with pytest.raises(ArtifactError, match=f"^cannot write {path}: No space left on device$"):
        write_atomically(path, b"new", ArtifactError)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_an_interrupt_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    """Ctrl-C in the middle passes through, and leaves the folder as it was."""

    def interrupt(_):
        raise KeyboardInterrupt

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new", ArtifactError)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_missing_folder_is_the_callers_kind_of_error(tmp_path):
    """The error is of the kind that the caller asked for, and names the file."""
    path = tmp_path / "nowhere" / "file"
    with pytest.raises(BaselineError, match=f"^cannot write {path}: No such file or directory$"):
        write_atomically(path, b"new", BaselineError)


def test_a_folder_is_not_replaced(tmp_path):
    """A folder under the file's name stays, and no temporary file is left beside it."""
    (tmp_path / "file").mkdir()
    with pytest.raises(ArtifactError, match="Is a directory"):
        write_atomically(tmp_path / "file", b"new", ArtifactError)
    assert (tmp_path / "file").is_dir()
    assert names(tmp_path) == ["file"]


@pytest.fixture
def aged(tmp_path):
    """Four files of ten bytes, "a" the oldest; another that no pattern names."""
    for age, name in enumerate(["d.pt2", "c.pt2", "b.pt2", "a.pt2"]):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (10_000 - age, 10_000 - age))
    (tmp_path / "trained").write_bytes(bytes(100))
    return tmp_path


@pytest.mark.parametrize(("limit", "left"), [(40, "abcd"), (39, "bcd"), (20, "cd"), (0, "")])
def test_the_oldest_files_of_a_cache_go_until_the_rest_is_small_enough(aged, limit, left):
    """No other file goes."""
    forget_oldest(aged, "*.pt2", limit)
    assert names(aged) == [*(f"{name}.pt2" for name in left), "trained"]


def test_a_file_of_the_cache_that_cannot_be_deleted_stays(aged, monkeypatch):
    """The next one goes in its place."""
    unlink = Path.unlink

    def refuse(path):
        if path.name == "a.pt2":
            raise PermissionError(errno.EPERM, "no")
        unlink(path)

    monkeypatch.setattr(Path, "unlink", refuse)
    forget_oldest(aged, "*.pt2", 30)
    assert names(aged) == ["a.pt2", "c.pt2", "d.pt2", "trained"]
