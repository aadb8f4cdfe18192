from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.calling.outputs import Outputs
from compress.exported import capture
from compress.exported.onnx import OnnxModel, to_onnx
from compress.measure import parity as under_test
from compress.measure.children import Conditions
from compress.measure.parity import answered, artifact_parity, parity
from compress.quality import artifact_answer_error, artifact_output_error, mae, miou, parity_of, topk_error
from compress.results import Kind
from tests.workloads import tiny_net, tiny_workload

BATCHES = [torch.arange(6.0).reshape(3, 2), torch.arange(4.0).reshape(2, 2)]


def conditions(runtime: str, example=None) -> Conditions:
    """Of the tiny network, one image at a time."""
    return Conditions(
        model_factory=tiny_net, example_input=torch.zeros(1, 3, 8, 8) if example is None else example, runtime=runtime
    )


def nested(x):
    """Outputs of some structure, of two inputs at once and no other number."""
    assert len(x) == 2
    return {"twice": 2 * x, "parts": (x.sum(dim=1), torch.tensor(3.0))}


def test_answers_are_given_at_the_size_that_a_file_is_made_for():
    """Batches are cut into pieces and the last one is filled up; outputs come back whole, however they are nested."""

    def exact(x):
        return {"twice": 2 * x, "parts": (x.sum(dim=1),)}

    def counted(out):
        return [out["twice"], out["parts"][0]]

    found = parity(nested, answered(exact, BATCHES, counted), artifact_output_error(), batch=2, outputs=counted)
    assert found.rows.shape == (5, 4)
    assert found.value == 0.0


def test_a_classifiers_file_is_held_by_its_answers(tiny_dense):
    """Every example keeps its answer, and the model's own side is 0 by itself."""
    workload = tiny_workload()
    found = artifact_parity(
        tiny_dense, conditions("onnxruntime"), workload.dataset.test.batches(16), parity_of(workload.qualities)
    )
    assert (found.metric, found.about.kind, found.dense, found.compressed) == (
        "artifact_answer_error",
        Kind.ERROR,
        0.0,
        0.0,
    )
    assert found.num_examples == len(workload.dataset.test)
    assert found.correct[0] == found.correct[1]


def test_answers_that_change_are_counted(tiny_dense, monkeypatch):
    """A file that answers otherwise for every image."""
    monkeypatch.setattr(under_test, "ready", lambda model, _: lambda x: model(x).roll(1, dims=1))
    found = artifact_parity(
        tiny_dense, conditions("onnxruntime"), tiny_workload().dataset.test.batches(16), artifact_answer_error()
    )
    assert (found.dense, found.compressed) == (0.0, 1.0)
    assert found.correct[0] != found.correct[1]


def test_other_files_are_held_by_the_error_of_their_outputs(monkeypatch):
    """Relative to the model's own, of those that count."""
    outputs: Outputs = lambda out: out["a"]  # noqa: E731 - as a workload has it
    model = _Named()
    monkeypatch.setattr(under_test, "ready", lambda _model, _conditions: lambda x: {"a": 1.1 * x, "b": 0 * x})
    found = artifact_parity(
        model, conditions("onnxruntime", torch.zeros(1, 2)), BATCHES, artifact_output_error(), outputs=outputs
    )
    assert (found.metric, found.about.kind, found.dense) == ("artifact_output_error", Kind.SCORE, 0.0)
    assert found.compressed == pytest.approx(0.1)
    assert found.scores.dense[:, 0].tolist() == [0.0] * 5


def test_what_a_file_is_held_by_follows_from_what_models_are_judged_by():
    """Logits of classes for whole examples have an answer; pictures and numbers have an error."""
    assert parity_of([topk_error(1)]).name == "artifact_answer_error"
    assert {parity_of([one]).name for one in (mae(), miou(3))} == {"artifact_output_error"}


class _Named(nn.Module):
    def forward(self, x):
        return {"a": x, "b": x}


@pytest.mark.parametrize("runtime", ["eager", "inductor"])
def test_a_runtime_without_a_file_has_nothing_to_hold(tiny_dense, runtime):
    """It says so instead of comparing a model with itself."""
    found = artifact_parity(tiny_dense, conditions(runtime), BATCHES, artifact_answer_error())
    assert (found.compressed, found.inapplicable) == (None, True)
    assert found.unmeasured == "the recipe's runtime makes no file of a model"


def test_a_file_of_unknown_origin_has_no_model_to_be_held_to(tiny_dense, tiny_images):
    """Whoever brings the file alone."""
    file = OnnxModel(to_onnx(capture(tiny_dense, tiny_images)))
    found = artifact_parity(file, conditions("onnxruntime"), BATCHES, artifact_answer_error())
    assert (found.compressed, found.inapplicable) == (None, True)
    assert found.unmeasured == "the model that the file was made of is not known"
