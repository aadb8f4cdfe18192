"""The plugin says which models it compares with, and holds them accordingly."""

from __future__ import annotations

import json

import pytest

from tests.plugin_project import make_project

NO_TIMES = ("benchmarks/test_size.py", "benchmarks/test_quality.py")
SAVE, COMPARE = "--benchmark-save=mine", ("--benchmark-compare", "--compress-partial")


@pytest.fixture
def project(pytester, monkeypatch, tmp_path_factory):
    """A project with a recorded baseline of counts, bytes and errors."""
    project = make_project(pytester, monkeypatch, tmp_path_factory.mktemp("cache"))
    recorded = project.run(*NO_TIMES, SAVE)
    assert recorded.status == 0, recorded.text
    return project


def changed(project, change):
    """Review the baseline by hand."""
    content = json.loads(project.baseline.read_text(encoding="utf-8"))
    change(content)
    project.baseline.write_text(json.dumps(content), encoding="utf-8")


def test_the_same_model_is_told_from_another_build(project):
    """At the head of the table, in every message, in the Markdown; a changed weight is another build."""
    models = json.loads(project.baseline.read_text(encoding="utf-8"))["models"]["quarter"]
    assert {key: len(models[key]) for key in ("compressed", "dense", "recipe")} == dict.fromkeys(
        ("compressed", "dense", "recipe"), 64
    )
    same = project.run(*NO_TIMES, *COMPARE, "--compress-report=report.md")
    assert same.status == 0, same.text
    assert "compared with the same model in baselines/mine.json, counts and bytes held" in same.text
    assert "compared with the same model in baselines/mine.json" in (project.path / "report.md").read_text()
    harmed = project.run(*NO_TIMES, *COMPARE, harm="num_params")
    assert harmed.status == 1
    first = "num_params of recipe 'quarter' REGRESSED, compared with another build of the same recipe"
    assert first in harmed.failures["test_num_params"]
    assert harmed.text.count("compared with another build of the same recipe in") == 1


def test_another_recipe_is_said(project):
    """Another setting of a step is another recipe; another limit or description is not."""
    text = project.recipe.read_text(encoding="utf-8")
    project.recipe.write_text(text.replace("a quarter", "one in four"), encoding="utf-8")
    assert "compared with the same model" in project.run(*NO_TIMES, *COMPARE).text
    project.recipe.write_text(text.replace("sparsity = 0.5", "sparsity = 0.51"), encoding="utf-8")
    assert "compared with another recipe in" in project.run(*NO_TIMES, *COMPARE).text


def test_what_the_baseline_says_wrongly_is_one_sentence(project):
    """Another dense model is compared as another build, and said; a fingerprint that is no hash ends the run."""
    changed(project, lambda content: content["models"]["quarter"].update(dense="0" * 64))
    other = project.run(*NO_TIMES, *COMPARE)
    assert other.status == 0
    assert "compared with another dense model in" in other.text
    changed(project, lambda content: content["models"]["quarter"].update(dense="abc"))
    before = project.baseline.read_bytes()
    wrong = project.run(*NO_TIMES, *COMPARE)
    assert wrong.status != 0
    assert "the baseline must hold a SHA-256 of 64 hexadecimal digits here, got" in wrong.text
    assert project.run(*NO_TIMES, SAVE).status != 0
    assert project.baseline.read_bytes() == before


def test_a_baseline_of_an_older_format_is_said_to_know_no_fingerprints(project):
    """It is read, held as another build's, and learns them when all of a recipe is recorded."""

    def older(content):
        del content["models"]
        content["schema"] = 2

    changed(project, older)
    compared = project.run(*NO_TIMES, *COMPARE)
    assert compared.status == 0
    assert "compared with a model of unknown fingerprint in" in compared.text
    assert project.run(*NO_TIMES, SAVE).status == 0
    assert "compared with the same model in" in project.run(*NO_TIMES, *COMPARE).text


def test_an_unknown_bound_on_the_cpu_ends_the_run_in_one_sentence(project, monkeypatch):
    """Its figures would stand under a wrong class."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX3")
    run = project.run(*NO_TIMES, *COMPARE)
    assert run.status == 4
    assert run.text.count("ONEDNN_MAX_CPU_ISA must be one of") == 1


@pytest.mark.parametrize("text", ["1", "-0.1", "nan", "much"])
def test_a_build_tolerance_is_a_fraction(project, text):
    """Anything else is refused before any work."""
    run = project.run(*NO_TIMES, f"--compress-build-tolerance={text}")
    assert run.status == 4
    assert f"--compress-build-tolerance must be a number in [0, 1), got '{text}'" in run.text
