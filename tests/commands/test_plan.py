from __future__ import annotations

import json

import pytest
from torch import nn

from compress.commands.cli import main


def bottleneck():
    """A model with something to cut, and an output that must stay."""
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))


def no_model():
    """Something else."""
    return 3


def test_inputs_of_any_structure_are_planned_for(capsys):
    """A workload that says what it takes as ``example_inputs``."""
    assert main(["plan", "text", "--pruning-ratio", "0.2"]) == 0
    assert "of them stay" in capsys.readouterr().out


def test_the_plan_says_what_goes_and_why_the_rest_stays(capsys):
    """Ten hidden units become eight; inputs and outputs are whole, each with its reason."""
    assert main(["plan", "tests.commands.test_plan:bottleneck", "--input", "1,6"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("103 parameters, 83 of them stay (80.6%) at a pruning ratio of 0.2\n")
    assert "cut: 1 of 3 groups" in text
    assert "    10 -> 8      0.weight[0], 0.bias[0] and 1 more\n" in text
    assert "2.weight[0], 2.bias[0]: model output\n" in text


def test_a_machine_is_told_every_member(capsys):
    """The same plan as JSON; a ratio that removes nothing leaves a reason."""
    arguments = ["plan", "tests.commands.test_plan:bottleneck", "--input", "1,6", "--json"]
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    (cut,) = (group for group in told["groups"] if group["whole_because"] is None)
    assert (told["num_params_after"], cut["channels"], cut["kept"]) == (83, 10, 8)
    assert {"tensor": "2.weight", "dim": 1} in cut["members"]
    assert main([*arguments, "--pruning-ratio", "0"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {group["whole_because"] for group in told["groups"]} >= {"the ratio leaves none to remove", "model output"}


def test_a_workload_brings_its_input(capsys):
    """A workload needs no shape."""
    assert main(["plan", "tests.workloads:tiny_workload"]) == 0
    assert "of them stay" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere:model", "--input", "1,6"], "model 'nowhere:model' cannot be built: ModuleNotFoundError"),
        (["tests.commands.test_plan:no_model", "--input", "1"], "must return a torch.nn.Module, got int"),
        (["tests.commands.test_plan:bottleneck", "--input", "1,6", "--pruning-ratio", "2"], "must be in [0, 1)"),
        (["tests.commands.test_plan:bottleneck"], "must return a compress.Workload"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(capsys, arguments, sentence):
    """No traceback, and exit status 1."""
    assert main(["plan", *arguments]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_shape_must_be_numbers(capsys):
    """A typing error is found by the parser."""
    with pytest.raises(SystemExit):
        main(["plan", "digits", "--input", "1,x"])
    assert "must be whole numbers above 0" in capsys.readouterr().err
