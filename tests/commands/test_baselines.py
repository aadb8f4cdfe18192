from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import compress
from compress.commands.cli import main
from compress.gate.schema import baseline_schema
from tests.gate.samples import baseline_of, params


@pytest.fixture
def files(tmp_path):
    """A baseline, one that is better, and a file that is none."""
    paths = []
    for name, measured in (("old", params()), ("better", params(4_000_000))):
        (tmp_path / name).mkdir()
        paths.append(str(baseline_of(tmp_path / name, measured).path))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    return (*paths, str(broken))


def test_diff_shows_what_changed_and_exits_by_it(files, capsys):
    """0 if nothing got worse, 1 if something did, as of a test of the file."""
    old, better, _ = files
    assert main(["diff", old, better]) == 0
    assert "better" in capsys.readouterr().out
    assert main(["diff", better, old]) == 1
    assert "WORSE" in capsys.readouterr().out
    assert main(["diff", old, old]) == 0


def test_diff_in_markdown(files, capsys):
    """For a pull request."""
    old, better, _ = files
    assert main(["diff", "--markdown", old, better]) == 0
    assert capsys.readouterr().out.startswith("| recipe ")


def test_diff_of_what_is_no_baseline_is_trouble(files, capsys):
    """A file that cannot be read is no difference: status 2, as of diff(1), and one sentence."""
    assert main(["diff", files[0], files[2]]) == 2
    assert capsys.readouterr().err.startswith("error: the baseline is not valid JSON: ")
    assert main(["diff", files[0], "nowhere.json"]) == 2


def test_help_says_the_exit_status(capsys):
    """Whoever writes a script need not try."""
    with pytest.raises(SystemExit):
        main(["diff", "--help"])
    assert "exit status: 0 if nothing got worse, 1 if" in " ".join(capsys.readouterr().out.split())


def test_schema_prints_what_files_are_held_against(capsys):
    """As it is published."""
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == baseline_schema()


def test_whoever_has_read_enough_gets_no_traceback():
    """As of `python -m compress schema | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(Path(compress.__file__).parents[1])}
    command = [sys.executable, "-W", "error", "-m", "compress", "schema"]
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run(
            command, env=environment, stdout=output, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")
