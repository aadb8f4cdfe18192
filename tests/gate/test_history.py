from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from compress.gate.history import baseline_history
from compress.gate.recording import record
from tests.gate.samples import DATA, PROVENANCE, params

GIT = shutil.which("git")


@pytest.fixture
def folder(tmp_path):
    """Where baselines live."""
    folder = tmp_path / "baselines"
    folder.mkdir()
    return folder


def write(folder, compressed, name="digits"):
    """A baseline of one value."""
    record(folder / f"{name}.json", {"structured": [params(compressed)]}, provenance=PROVENANCE)


def commit(folder, day):
    """Commit all there is, on a day of 2026-05."""
    date = f"2026-05-{day:02}T12:00:00+02:00"
    environment = {
        **os.environ,
        "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_DATE": date,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "."]):
        subprocess.run([GIT, *arguments], cwd=folder.parent, env=environment, check=True)


def values(folder):
    """The recorded value of each version, oldest first."""
    versions = baseline_history(folder, workload="digits", data_sha256=DATA)
    return [version.baseline.entries("structured", "num_params")[""].compressed for version in versions]


@pytest.mark.skipif(GIT is None, reason="git is not installed")
def test_every_committed_version_then_the_file_as_it_stands(folder):
    """Oldest first, all baselines of the workload together; a version nobody changed comes once."""
    write(folder, 3000)
    commit(folder, 1)
    write(folder, 2000)
    write(folder, 1500, name="other")
    commit(folder, 2)
    assert values(folder) == [3000, 2000, 1500]
    write(folder, 1000)
    assert values(folder) == [3000, 2000, 1500, 1000]
    versions = baseline_history(folder, workload="digits", data_sha256=DATA)
    assert [f"{version.when:%d}" for version in versions[:3]] == ["01", "02", "02"]
    assert versions[0].label.startswith("digits at ")
    assert versions[3].label == "digits, not committed"
    assert versions[0].baseline.path == folder / "digits.json"


@pytest.mark.skipif(GIT is None, reason="git is not installed")
def test_a_version_that_cannot_be_read_is_left_out(folder):
    """A damaged one, or one of another schema, is no reason to show nothing."""
    (folder / "digits.json").write_text('{"schema": 99}', encoding="utf-8")
    commit(folder, 1)
    (folder / "digits.json").unlink()
    write(folder, 2000)
    commit(folder, 2)
    assert values(folder) == [2000]


def test_without_git_it_is_the_files_as_they_stand(folder, monkeypatch):
    """No git, no repository: still the file that is there."""
    assert values(folder) == []
    write(folder, 2000)
    assert values(folder) == [2000]
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert values(folder) == [2000]


def test_other_workloads_and_other_data_are_no_history(folder):
    """Only what compares."""
    write(folder, 2000)
    assert baseline_history(folder, workload="cifar10", data_sha256=DATA) == []
    assert baseline_history(folder, workload="digits", data_sha256="f" * 64) == []
    assert baseline_history(folder / "absent", workload="digits", data_sha256=DATA) == []
