from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from compress.calling.inputs import inputs_of
from compress.measure.runtimes import MIN_ROUNDS, Examples, RuntimeRow, prepare_rows, time_rows
from compress.measure.size import count_file_bytes
from compress.quality import artifact_answer_error, artifact_output_error
from tests.workloads import tiny_workload


def test_every_model_is_prepared_under_every_runtime_and_compared_with_itself(tiny_dense, tiny_images):
    """A row for each pair, with its time to prepare, its difference to eager, and a call."""
    told = []
    rows = prepare_rows({"float32": tiny_dense}, inputs_of(tiny_images), ["eager", "onnxruntime"], told.append)
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
    examples = Examples.of({"float32": tiny_dense}, split.batches(8), 12, artifact_answer_error())
    assert [len(answers) for _, answers in examples.answers["float32"]] == [8, 4]
    assert examples.parity(tiny_dense, "float32", 4) == 0.0

    def other(images):
        logits = tiny_dense(images)
        logits[0] = -logits[0]
        return logits

    assert examples.parity(other, "float32", 4) == 0.25
    assert examples.parity(tiny_dense, "float32", 5) == 0.0
    (row,) = prepare_rows(
        {"float32": tiny_dense}, inputs_of(tiny_images[:2]), ["eager"], lambda _: None, examples=examples
    )
    assert row.parity == 0.0
    assert row.file_bytes == count_file_bytes(tiny_dense)


def test_what_cannot_run_is_a_row_with_its_reason(tiny_images):
    """The other rows are there all the same."""
    (row,) = prepare_rows({"float32": nn.Linear(5, 2)}, inputs_of(tiny_images), ["eager"], lambda _: None)
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


def test_models_that_are_no_classifiers_are_compared_by_their_outputs():
    """Of any structure, called with any."""

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, *, ids, mask):
            return {"values": self.layer(ids) * mask}

    torch.manual_seed(0)
    model = Named().eval()
    batches = [{"ids": torch.randn(3, 4), "mask": torch.ones(3, 1)} for _ in range(2)]
    examples = Examples.of({"float32": model}, batches, 5, artifact_output_error())
    rows = prepare_rows(
        {"float32": model}, inputs_of(batches[0]), ["eager", "onnxruntime"], lambda _: None, examples=examples
    )
    assert [row.unavailable for row in rows] == ["", ""]
    assert all(row.difference < 1e-5 and row.parity < 1e-5 for row in rows)
    off = examples.parity(lambda **named: {"values": 1.1 * model(**named)["values"]}, "float32", 3)
    assert off == pytest.approx(0.1, rel=1e-4)
