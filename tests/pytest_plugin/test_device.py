"""``--compress-device``: the gate's latency and memory on another machine, which here is this one behind a shell."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from compress.calling.pairs import pinned_threads
from compress.pytest_plugin.options import COULD_NOT_MEASURE
from compress.system.cpu import cpu_class
from tests.plugin_project import RECIPE, make_project

# As ssh does, with the last of its words: a line for the other machine's shell.
_SHELL = """#!/bin/sh
for line; do :; done
echo called >> {calls}
exec sh -c "$line"
"""


@pytest.fixture
def project(pytester, monkeypatch, tmp_path_factory):
    """A project whose recipe is timed under ONNX Runtime."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    project = make_project(pytester, monkeypatch, tmp_path_factory.getbasetemp() / "compress-cache")
    project.recipe.write_text(f'runtime = "onnxruntime"\n{RECIPE}', encoding="utf-8")
    script = project.path / "shell"
    script.write_text(_SHELL.format(calls=project.path / "calls"), encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("COMPRESS_SSH_COMMAND", str(script))
    return project


@pytest.mark.nightly
def test_latency_and_memory_are_measured_there_and_held_here(project):
    """Recorded and compared under the device's class, all through one connection a run."""
    device = f"--compress-device=ssh://board{sys.executable}"
    meters = ("-k", "cpu_latency or cpu_memory", device)
    with pinned_threads(1):
        # In processes of their own: within a test, torch can be imported only by halves.
        recorded = project.run("--benchmark-save=mine", *meters, fresh=True)
        assert (recorded.status, recorded.failures) == (0, {}), recorded.text
        entries = json.loads(project.baseline.read_text(encoding="utf-8"))["recipes"]["quarter"]
        assert [*entries["cpu_latency_ms"]] == [*entries["cpu_peak_bytes"]] == [cpu_class(1)]
        project.widen_ratios()
        compared = project.run("--benchmark-compare", "--compress-partial", *meters, fresh=True)
    assert (compared.status, compared.failures) == (0, {}), compared.text
    assert (project.path / "calls").read_text(encoding="utf-8") == "called\n" * 2


def test_a_device_that_cannot_be_reached_is_no_pass(project, monkeypatch):
    """Both metrics are named as not measured, with the reason."""
    monkeypatch.setenv("COMPRESS_SSH_COMMAND", "sh -c 'echo no route to host >&2; exit 255'")
    run = project.run("-k", "cpu_latency or cpu_memory", "--compress-device=ssh://board")
    assert run.status == COULD_NOT_MEASURE, run.text
    assert "the device board could not be reached: no route to host" in run.text


def test_an_address_of_another_form_ends_the_run_at_its_start(project):
    """With the option that states it."""
    run = project.run("--compress-device=telnet://board")
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert "--compress-device: a device must be ssh://[user@]host[:port][/path/of/python], got" in run.text
