from __future__ import annotations

import importlib.util

import pytest

from compress.commands.cli import main
from compress.report.sweep_file import read_sweep
from compress.sweep import run
from tests.sweep.recipes import FIT, ZERO, write_recipe

WORKLOAD = ["--workload", "tests.workloads:tiny_workload", "--seconds", "0.001", "--processes", "0"]


@pytest.fixture
def zero(tmp_path):
    """A recipe that zeroes half of the weights."""
    return str(write_recipe(tmp_path, "zero", ZERO))


def test_a_sweep_prints_its_table_and_writes_its_files(tmp_path, zero, capsys):
    """On stdout the table alone, on stderr a line for each model; a file for each --output, by its ending."""
    outputs = [tmp_path / f"out{ending}" for ending in (".json", ".csv", ".md", ".svg")]
    words = ["sweep", zero, *WORKLOAD, "--study", str(tmp_path / "s.journal"), "--grid"]
    words += [
        "--set",
        "prune_weights.sparsity=0.1,0.5",
        *(word for path in outputs for word in ("--output", str(path))),
    ]
    assert main(words) == 0
    printed = capsys.readouterr()
    heads = [line.split("  ")[0] for line in printed.out.splitlines()[:4]]
    # Which of two equally large models is the faster, chance decides.
    assert heads[:2] == ["model", "dense"]
    assert set(heads[2:]) == {"zero", "zero: prune_weights.sparsity=0.1"}
    assert [line.split(", ")[0] for line in printed.err.splitlines()] == [
        f"1: zero: top-1 error {read_sweep(outputs[0]).candidates[0].quality:.2%}".replace("%", " %"),
        f"2: zero: prune_weights.sparsity=0.1: top-1 error {read_sweep(outputs[0]).candidates[1].quality:.2%}".replace(
            "%", " %"
        ),
    ]
    assert all(path.stat().st_size for path in outputs)
    assert main([*words, "--quiet"]) == 0
    again = capsys.readouterr()
    assert (again.out, again.err) == (printed.out, "")


def test_without_trials_there_are_twenty(tmp_path, zero, monkeypatch):
    """A sweep that is no grid ends by itself all the same; --random and --grid choose how it goes about it."""
    seen = []
    monkeypatch.setattr(run, "run_sweep", lambda *arguments, **_: seen.append(arguments[3]) or 1 / 0)
    for words in ([], ["--random"], ["--grid"], ["--grid", "--trials", "3"]):
        with pytest.raises(ZeroDivisionError):
            main(["sweep", zero, *WORKLOAD, "--study", str(tmp_path / "s"), "--quiet", *words])
    assert [(config.sampler, config.trials) for config in seen] == [
        ("tpe", 20),
        ("random", 20),
        ("grid", None),
        ("grid", 3),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "prune_weights.sparsity"], "a parameter must be NAME=VALUE,VALUE... or NAME=LOW..HIGH, got "),
        (["--set", "prune_weights.sparsity=2"], "sparsity must be in [0, 1), got 2 (recipe "),
        (["--set", "fit.epochs=1..2"], "parameter fit.epochs names a step of none of the recipes zero"),
        (["--set", "prune_weights.sparsity=0.1..0.2", "--grid"], "a grid takes lists of values, got 0.1 to 0.2"),
        (["--trials", "0"], "trials must be at least 1, got 0"),
        (["--threads", "0"], "threads must be at least 1, got 0"),
        (
            ["--output", "x.pdf"],
            "a sweep's results are written to a file that ends in .json, .csv, .md, .svg, got x.pdf",
        ),
        (["--study", "absent/study"], "a study needs a folder that exists (absent/study)"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, zero, capsys, words, message):
    """Whatever is wrong with the command is said in one sentence, and leaves no study behind."""
    study = tmp_path / "s.journal"
    assert main(["sweep", zero, *WORKLOAD, "--study", str(study), "--quiet", *words]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {message}")
    assert printed.err.count("\n") == 1
    assert not printed.out
    assert not study.exists()


def test_a_study_of_another_workload_is_refused(tmp_path, zero, capsys):
    """The sentence names both, and what to do."""
    study = str(tmp_path / "s.journal")
    assert main(["sweep", zero, *WORKLOAD, "--study", study, "--grid", "--quiet"]) == 0
    other = str(write_recipe(tmp_path, "other", FIT))
    capsys.readouterr()
    assert main(["sweep", zero, other, *WORKLOAD, "--study", study, "--grid", "--quiet"]) == 1
    expected = (
        f"error: the study {study} is of the recipes zero, this sweep of other, zero; name another file with --study"
    )
    assert capsys.readouterr().err == expected + "\n"


def test_without_optuna_it_says_what_to_install(tmp_path, zero, capsys, monkeypatch):
    """It is an extra."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert main(["sweep", zero, *WORKLOAD, "--study", str(tmp_path / "s")]) == 1
    assert capsys.readouterr().err == (
        "error: a sweep needs Optuna, which is not installed: pip install 'pytest-compress[sweep]'\n"
    )
