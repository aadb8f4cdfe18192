import dataclasses

import pytest
import torch
from torch import nn

import compress
from compress.calling.outputs import named_tensors, selected
from compress.errors import ConfigError
from compress.recipe import load_recipe, run_recipe
from compress.workload.workload import dense_model
from tests.workloads import featured_net, featured_workload, logits_of

X = torch.linspace(-1, 1, 384).reshape(2, 3, 8, 8)


class Plain:
    """An object as an output."""

    def __init__(self) -> None:
        self.a, self.count = torch.zeros(1), 3


@pytest.mark.parametrize(
    ("output", "names"),
    [
        (torch.zeros(1), [""]),
        ((torch.zeros(1), [torch.zeros(1), None]), ["[0]", "[1][0]"]),
        ({"a": torch.zeros(1), "b": {"c": (torch.zeros(1),)}}, ["'a'", "'b'['c'][0]"]),
        (Plain(), ["'a'"]),
        (3, []),
    ],
    ids=["tensor", "nested", "mapping", "object", "none"],
)
def test_outputs_are_called_by_where_they_lie(output, names):
    """Keys, attributes and places, as one would write them."""
    assert [name for name, _ in named_tensors(output)] == names


def test_all_outputs_count_unless_some_are_named():
    """A function picks what counts."""
    output = {"logits": torch.ones(1), "hidden": torch.zeros(1)}
    assert selected(output, None) is output
    assert selected(output, logits_of) is output["logits"]
    with pytest.raises(ConfigError, match="outputs must name outputs of the model, but failed: 'scores'"):
        selected(output, lambda out: out["scores"])


def wrong(output):
    """Names an output that there is not."""
    return output["scores"]


@pytest.mark.parametrize(
    "technique",
    [
        lambda net, outputs: compress.recalibrate(net, [X], outputs=outputs),
        lambda net, outputs: compress.factorize(net, X, outputs=outputs, progress=False),
        lambda net, outputs: compress.prune_channels(net, X, options=compress.PruneOptions(outputs=outputs)),
    ],
    ids=["recalibrate", "factorize", "prune"],
)
def test_every_technique_is_told_which_outputs_count(technique):
    """The same option everywhere; what names no output is refused in one sentence."""
    torch.manual_seed(0)
    net = featured_net()
    assert isinstance(technique(net, logits_of), nn.Module)
    with pytest.raises(ConfigError, match="outputs must name outputs of the model"):
        technique(net, wrong)


RECIPE = """
[[steps]]
use = "prune_channels"
pruning_ratio = 0.25
recalibration_batches = 1

[[steps]]
use = "fit"
epochs = 1
batch_size = 16
validation_fraction = 0.25
distill = true

[[steps]]
use = "prune_rounds"
rounds = 2
pruning_ratio = 0.25
batch_size = 16
recalibration_batches = 1

[[steps]]
use = "factorize"
"""


def test_a_recipe_takes_the_outputs_from_its_workload(tmp_path):
    """Dense model, cut, training and judgement all go by the logits; the features lose half of their 8 channels."""
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    workload = featured_workload()
    small = run_recipe(load_recipe(path), dense_model(workload, progress=False), workload, progress=False)
    assert small(X)["features"].shape[1] == 4
    assert 0 <= compress.evaluate(small, workload.dataset.test, outputs=workload.outputs).top1_error <= 1


def test_tensors_are_named_in_dataclasses_of_any_nesting():
    """A plain class of results is a structure as a mapping is."""

    @dataclasses.dataclass
    class Inner:
        features: torch.Tensor

    @dataclasses.dataclass
    class Result:
        logits: torch.Tensor
        inner: list[Inner]

    one, other = torch.zeros(1), torch.zeros(2)
    found = list(named_tensors(Result(logits=one, inner=[Inner(features=other)])))
    assert [name for name, _ in found] == ["'logits'", "'inner'[0]['features']"]
    assert [id(tensor) for _, tensor in found] == [id(one), id(other)]


@pytest.mark.parametrize(("within_objects", "count"), [(True, 2), (False, 1)])
def test_another_object_may_be_looked_into(within_objects, count):
    """A cache in a mapping holds tensors too, which are put out or not as the caller asks."""

    class Cache:
        def __iter__(self):
            return iter([torch.zeros(3)])

    output = {"logits": torch.zeros(1), "cache": Cache(), "loss": 0.5, "name": "x"}
    assert len(list(named_tensors(output, within_objects=within_objects))) == count
