from __future__ import annotations

from pathlib import Path

import pytest

from compress.commands.cli import main
from compress.gate.judge import RECORDED_LOOKS
from compress.selfcheck import trials

COMMAND = ["selfcheck", "--workload", "tests.workloads:tiny_workload", "--trials=2", "--slowed-trials=1", "--quiet"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def blind(monkeypatch, *, is_blind: bool) -> None:
    """Processes that never start; of a slow-down they see all or nothing."""

    def runs_in(children, _models, conditions, _effort, *, slowdown):
        assert conditions.model_args == {"width": 4}
        return (((5.0, 5.0 if is_blind else 5.0 * (1 + slowdown)),) * 8,) * children.count

    monkeypatch.setattr(trials, "runs_in", runs_in)


@pytest.mark.parametrize(("is_blind", "status", "said"), [(False, 0, "\nHeld: "), (True, 3, "\nMISSED: ")])
def test_the_status_says_whether_the_promise_was_kept(monkeypatch, capsys, is_blind, status, said):
    """A gate that finds what it must is 0, one that does not is 3; both show their table, and write it where asked."""
    blind(monkeypatch, is_blind=is_blind)
    assert main([*COMMAND, "--markdown=table.md"]) == status
    printed = capsys.readouterr().out
    assert said in printed
    assert printed == Path("table.md").read_text()
    assert len(Path("selfcheck.jsonl").read_text().splitlines()) == 1 + RECORDED_LOOKS + 2 + 4


def test_a_busy_self_check_has_a_file_of_its_own(monkeypatch, tmp_path):
    """Both may be interrupted and gone on with beside one another."""
    blind(monkeypatch, is_blind=False)
    assert main([*COMMAND, "--busy"]) == 0
    assert main(COMMAND) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"selfcheck.jsonl", "selfcheck-busy.jsonl"}


def test_results_of_another_self_check_are_an_error(monkeypatch, capsys):
    """Status 1 and one sentence, as whenever something could not be done."""
    blind(monkeypatch, is_blind=False)
    main(COMMAND)
    assert main([*COMMAND, "--processes=2"]) == 1
    assert capsys.readouterr().err.startswith("error: the file of results belongs to another self-check")


@pytest.mark.parametrize("argument", ["--trials=0", "--slowed-trials=x", "--processes=0", "--seconds=0", "--seconds=x"])
def test_counts_that_make_no_sense_are_refused(capsys, argument):
    """By argparse, with the option in the message."""
    with pytest.raises(SystemExit) as caught:
        main(["selfcheck", argument])
    assert caught.value.code == 2
    assert argument.partition("=")[0] in capsys.readouterr().err
