from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from torch import nn

from compress.artifacts import artifact
from compress.calling.inputs import inputs_of
from compress.errors import ModelError
from compress.exported import ExportedModel, capture


class Pair(NamedTuple):
    """Two tensors."""

    first: torch.Tensor
    second: torch.Tensor


@dataclasses.dataclass
class Outputs:
    """As a model of one's own may put out."""

    logits: torch.Tensor
    cache: object = None


class Nested(nn.Module):
    """Several inputs, by place and by name; outputs in every kind of container."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.e = nn.Linear(4, 3), nn.Embedding(9, 4)

    def forward(self, x: torch.Tensor, ids: torch.Tensor, *, more: dict[str, torch.Tensor], scale: float = 1.0):
        states = x + self.e(ids) + more["bias"]
        return {
            "out": Outputs(self.a(states) * scale, object()),
            "all": [states, (x * 2, None, 3)],
            "ordered": OrderedDict(b=x + 1, a=x - 1),
            "pair": Pair(x * 3, x * 4),
        }


def arguments(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The positional ones."""
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 4, generator=generator), torch.randint(0, 9, (count,), generator=generator)


def named(count: int) -> dict[str, object]:
    """The others."""
    return {"more": {"bias": torch.full((count, 4), 0.5)}, "scale": 2.0}


def tensors(outputs) -> list[torch.Tensor]:
    """In a fixed order, from the model's own containers or from plain ones."""
    out = outputs["out"]
    logits = out.logits if isinstance(out, Outputs) else out["logits"]
    states, (double, *_) = outputs["all"]
    return [logits, states, double, outputs["ordered"]["a"], outputs["pair"][1]]


def same(made, model: nn.Module, count: int) -> None:
    """At another batch size too."""
    with torch.no_grad():
        x, ids = arguments(count)
        for ours, theirs in zip(
            tensors(made(x, ids, **named(count))), tensors(model(x, ids, **named(count))), strict=True
        ):
            torch.testing.assert_close(ours, theirs)


@pytest.fixture(scope="module")
def model():
    """In eval mode."""
    torch.manual_seed(0)
    return Nested().eval()


@pytest.fixture(scope="module")
def exported(model):
    """Its graph."""
    x, ids = arguments(3)
    example = dataclasses.replace(inputs_of((x, ids)), kwargs=named(3))
    return ExportedModel(capture(model, example))


def test_a_graph_takes_and_puts_out_what_its_model_does(exported, model):
    """Of its classes too; what is no tensor and no number is None."""
    same(exported, model, 5)
    outputs = exported(*arguments(2), **named(2))
    assert isinstance(outputs["out"], Outputs)
    assert outputs["out"].cache is None
    assert outputs["all"][1][1:] == (None, 3)
    assert isinstance(outputs["pair"], Pair)


def test_arguments_go_by_place_or_by_name(exported):
    """Constants may be left out; what is missing or unknown is named."""
    x, ids = arguments(2)
    more = named(2)["more"]
    expected = exported(x, ids, more=more, scale=2.0)["out"].logits
    for outputs in (exported(x, ids=ids, more=more), exported(ids=ids, x=x, more=more), exported(x, ids, more)):
        assert outputs["out"].logits.equal(expected)
    with pytest.raises(ModelError, match=r"^the model takes x, ids, more, scale, 'more' is missing$"):
        exported(x, ids)
    with pytest.raises(ModelError, match=r"^the model takes x, ids, more, scale, got 2 arguments and \['wrong'\]$"):
        exported(x, ids, wrong=1)


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_a_file_holds_how_inputs_and_outputs_are_nested(exported, model, tmp_path, ending):
    """In plain containers, which every reader knows."""
    path = tmp_path / f"nested{ending}"
    artifact.save(exported, path)
    loaded = artifact.load(path)
    same(loaded, model, 3)
    outputs = loaded(*arguments(3), **named(3))
    assert {type(value) for value in outputs.values()} == {dict, list, tuple}
    assert outputs["all"][1][1:] == (None, 3)


def test_a_model_in_bfloat16_is_refused_before_it_is_written(tmp_path):
    """ONNX Runtime could not load it."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval().bfloat16()
    with pytest.raises(ModelError, match=r"^ONNX Runtime runs no bfloat16 on the CPU, '0\.weight' is: "):
        artifact.save(model, tmp_path / "half.onnx", torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16))
    assert not list(tmp_path.iterdir())
