from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from compress.measure.runtimes import MIN_ROUNDS, Examples, RuntimeRow, prepare_rows, time_rows
from compress.measure.size import count_file_bytes
from compress.quality import artifact_answer_error
from tests.workloads import tiny_workload


def test_every_model_is_prepared_under_every_runtime_and_compared_with_itself(tiny_dense, tiny_images):
    """A row for each pair, with its time to prepare, its difference to eager, and a call."""
    told = []
    rows = prepare_rows({"float32": tiny_dense}, tiny_images, ["eager", "onnxruntime"], told.append)
    assert [(row.runtime, row.precision, row.batch) for row in rows] == [
        ("eager", "float32", 16),
        ("onnxruntime", "float32", 16),
    ]
    assert told[1] == "preparing float32 under onnxruntime at batch 16"
    assert rows[0].difference == 0.0
    assert 0.0 <= rows[1].difference < 1e-5
    assert all(row.prepare_s > 0 and row.call().shape == (16, 3) for row in rows)


def test_changed_answers_are_counted_against_the_model_itself(tiny_dense, tiny_images):
    """At any batch size, in the order of the split."""
    split = tiny_workload().dataset.test
    examples = Examples.of({"float32": tiny_dense}, split, 12, artifact_answer_error())
    assert [len(answers) for _, answers in examples.answers["float32"]] == [12]
    assert examples.share_changed(tiny_dense, "float32", 4) == 0.0

    def other(images):
        logits = tiny_dense(images)
        logits[0] = -logits[0]
        return logits

    assert examples.share_changed(other, "float32", 4) == 0.25
    assert examples.share_changed(tiny_dense, "float32", 5) == 0.0
    (row,) = prepare_rows({"float32": tiny_dense}, tiny_images[:2], ["eager"], lambda _: None, examples=examples)
    assert row.changed == 0.0
    assert row.file_bytes == count_file_bytes(tiny_dense)


def test_what_cannot_run_is_a_row_with_its_reason(tiny_images):
    """The other rows are there all the same."""
    (row,) = prepare_rows({"float32": nn.Linear(5, 2)}, tiny_images, ["eager"], lambda _: None)
    assert row.unavailable.startswith("Linear does not run under eager: ")
    assert row.call is None
    assert math.isnan(row.median_ms)


def test_all_rows_are_called_in_turn_every_other_round_backwards():
    """One call of each in a round, so that a drifting clock favours none."""
    called = []
    rows = [
        RuntimeRow(runtime=name, precision="float32", batch=1, call=lambda name=name: called.append(name))
        for name in "abc"
    ]
    rows.insert(1, RuntimeRow(runtime="gone", precision="float32", batch=1, unavailable="no reason"))
    time_rows(rows, seconds=0.0)
    assert called == (["a", "b", "c", "c", "b", "a"] * MIN_ROUNDS)[: 3 * MIN_ROUNDS]
    assert [len(row.latencies_ms) for row in rows] == [MIN_ROUNDS, 0, MIN_ROUNDS, MIN_ROUNDS]


def test_a_speedup_is_the_median_over_rounds():
    """How many times as fast: not the quotient of medians."""
    slow = RuntimeRow(runtime="eager", precision="float32", batch=1, latencies_ms=[10.0, 20.0, 90.0])
    fast = RuntimeRow(runtime="inductor", precision="float32", batch=1, latencies_ms=[5.0, 5.0, 30.0])
    assert fast.speedup_over(slow) == pytest.approx(3.0)
    assert fast.median_ms == 5.0
    assert torch.tensor(RuntimeRow(runtime="x", precision="y", batch=1).speedup_over(slow)).isnan()
