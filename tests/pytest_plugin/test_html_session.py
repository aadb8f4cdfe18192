from __future__ import annotations

import json

import pytest
import torch

from compress.calling.pairs import pinned_threads
from compress.report.sweep_file import write_sweep
from tests.plugin_project import make_project
from tests.report.page_samples import sweep

SIZES = "test_num_params or test_file_bytes or (test_quality and top1_error)"


@pytest.fixture
def project(pytester, monkeypatch, tmp_path_factory):
    """A project on a machine without CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pinned_threads(1):
        yield make_project(pytester, monkeypatch, tmp_path_factory.getbasetemp() / "compress-cache")


def test_a_page_shows_the_run(project):
    """Table, verdicts, size against error, what became of the layers, and the baseline's history."""
    assert project.run("-k", SIZES, "--benchmark-save=mine").status == 0
    run = project.run(
        "-k", SIZES, "--benchmark-compare", "--compress-partial", "--compress-html=page.html", "-W", "error"
    )
    assert (run.status, run.failures) == (0, {})
    assert "page written to page.html" in run.text
    page = (project.path / "page.html").read_text(encoding="utf-8")
    for words in ("<h1>mine</h1>", "Error against size", 'id="layers"', 'id="history"', "features", "4x1x1x1"):
        assert words in page
    assert "Nothing regressed: 3 held" in page


def test_a_failed_run_has_its_page_too(project):
    """That is when it is wanted most."""
    assert project.run("-k", SIZES, "--compress-html=page.html", harm="num_params").status == 1
    assert "regressed" in (project.path / "page.html").read_text(encoding="utf-8")


def test_a_sweeps_models_are_drawn_with_the_runs(project):
    """Those of the same workload and data; others fail the run in a sentence, and no page is written."""
    write_sweep(sweep(), project.path / "sweep.json")
    words = ["-k", SIZES, "--compress-html=page.html", "--compress-sweep=sweep.json"]
    refused = project.run(*words)
    assert refused.status == pytest.ExitCode.USAGE_ERROR
    assert "no report: a page shows one workload, got the sweep of 'digits' for a run of 'mine'" in refused.text
    assert not (project.path / "page.html").exists()
    assert project.run("-k", "num_params", "--benchmark-save=mine").status == 0
    recorded = json.loads(project.baseline.read_text(encoding="utf-8"))
    results = json.loads((project.path / "sweep.json").read_text(encoding="utf-8"))
    results |= {"workload": "mine", "data_sha256": recorded["data_sha256"]}
    (project.path / "sweep.json").write_text(json.dumps(results), encoding="utf-8")
    assert project.run(*words).status == 0
    assert "trial of the sweep" in (project.path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compress-html=absent/page.html"], "--compress-html needs a folder that exists, got absent/page.html"),
        (
            ["--compress-sweep=x.json"],
            "--compress-sweep is drawn on the page of --compress-html=FILE, which is missing",
        ),
        (
            ["--compress-html=page.html", "--compress-sweep=x.json"],
            "--compress-sweep: cannot read a sweep's results: No such file or directory (x.json)",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(project, words, message):
    """One sentence, no tests."""
    run = project.run("-k", "num_params", *words)
    assert run.status == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: {message}" in run.text
    assert run.passed == frozenset()
