from __future__ import annotations

import dataclasses

from compress.gate.judge import judge
from compress.report.table import Cell, build_table
from compress.results import Environment, Measurement
from tests.gate.samples import ENVIRONMENT, params
from tests.report.samples import times, verdicts


def test_rows_follow_the_metrics_and_columns_the_recipes(tmp_path):
    """The order of verdicts does not matter to the rows; recipes stand as they first came."""
    table = build_table(verdicts(tmp_path))
    assert table.recipes == ("structured", "int8")
    assert [row.title for row in table.rows] == [
        "parameters",
        "top-1 error",
        "runtime memory, CPU",
        "time per image, CPU",
        "time per image, CUDA",
    ]


def test_every_outcome_has_a_word_of_its_own(tmp_path):
    """No mark rests on colour alone."""
    table = build_table(verdicts(tmp_path))
    marks = [[cell.outcome for cell in row.cells] for row in table.rows]
    assert marks == [
        ["ok", "not run"],
        ["inconclusive [1]", "ok"],
        ["not run", "not gated [2]"],
        ["ok", "REGRESSED [3]"],
        ["NOT MEASURED [4]", "NOT MEASURED [4]"],
    ]
    assert table.summary == "1 REGRESSED, 2 NOT MEASURED, 1 inconclusive, 3 ok, 1 not gated, 2 not run"


def test_values_and_changes(tmp_path):
    """Each cell has its value and its change in the metric's own way."""
    rows = build_table(verdicts(tmp_path)).rows
    assert [row.dense for row in rows] == ["6,402,564", "2.00 %", "58.7 MB", "5.00 ms", ""]
    assert rows[0].cells[0] == Cell(
        value="4,089,523", change="-36.1 %", mark="ok", status=rows[0].cells[0].status, note=None
    )
    assert (rows[1].cells[0].value, rows[1].cells[0].change) == ("3.20 %", "+1.20 pt")
    assert (rows[3].cells[0].value, rows[3].cells[0].change) == ("4.10 ms", "x0.78")
    assert (rows[4].cells[0].value, rows[4].cells[0].change) == ("", "")


def test_note_of_several_cells_is_written_once(tmp_path):
    """What is missing for every recipe alike is said once, and named with all of them."""
    notes = build_table(verdicts(tmp_path)).notes
    assert len(notes) == 4
    assert notes[-1] == "NOT MEASURED: time per image, CUDA (structured, int8): there is no CUDA device"


def test_later_verdict_counts():
    """A metric that was measured once more shows its last verdict only."""
    first, second = (judge(times(5.0, value), recipe="structured") for value in (6.0, 4.0))
    table = build_table([first, second])
    assert [cell.value for cell in table.rows[0].cells] == ["4.00 ms"]


def test_impossible_values_are_not_shown_as_numbers():
    """Not a number is no value."""
    table = build_table([judge(params(float("nan"), dense=float("inf")), recipe="structured")])
    row = table.rows[0]
    assert (row.dense, row.cells[0].value, row.cells[0].mark) == ("", "", "NOT MEASURED")


def test_value_without_dense_has_no_change():
    """Without a dense value there is nothing to compare with."""
    row = build_table([judge(Measurement(metric="macs", compressed=10.0), recipe="structured")]).rows[0]
    assert (row.cells[0].value, row.cells[0].change) == ("10", "")


def test_about_names_workload_and_machine():
    """Below the table stands what was measured, and where."""
    table = build_table([], workload="digits", environment=ENVIRONMENT)
    assert table.footer == (
        "workload: digits",
        "environment: Python 3.11.9, torch 2.15.0, Test CPU (cpu-avx2-1t)",
    )
    card = dataclasses.replace(ENVIRONMENT, gpu="Test GPU", cuda_class="cuda-sm90")
    assert isinstance(card, Environment)
    assert build_table([], environment=card).footer[0].endswith("Test CPU (cpu-avx2-1t), Test GPU (cuda-sm90)")


def test_nothing_measured_is_an_empty_table():
    """Without verdicts there are no rows, and no crash."""
    table = build_table([])
    assert (table.rows, table.recipes, table.footer) == ((), (), ())


def test_a_compilers_times_are_named_with_the_dense_model_that_they_are_held_against():
    """The row shows the dense model as it is; where a recipe's own one is compiled, the cell names both."""
    measured = {"structured": times(13.0, 10.0), "unstructured": times(12.5, 12.5), "int8": times(8.0, 6.0)}
    row = build_table([judge(time, recipe=recipe) for recipe, time in measured.items()]).rows[0]
    assert row.dense == "12.50 ms"
    assert [cell.value for cell in row.cells] == ["10.00 ms", "12.50 ms", "6.00 ms of 8.00 ms"]
    assert row.cells[2].change == "x0.75"
