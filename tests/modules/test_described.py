from __future__ import annotations

import json
import operator
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from compress.modules.described import described
from compress.quality import mae, rmse, topk_error
from compress.results import Unit


def scaled(factor):
    """A function that closes over a number."""
    return lambda x: factor * x


class Loss:
    """An object with a setting and a private cache."""

    def __init__(self, weight):
        self.weight = weight
        self._seen = object()

    def __call__(self, x):
        return self.weight * x


class Slotted:
    """An object without a dictionary."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


PAIRS = {
    "numbers": (1, 2),
    "kinds": (1, 1.5),
    "closures": (scaled(1), scaled(2)),
    "arguments": (partial(torch.optim.AdamW, lr=1e-4), partial(torch.optim.AdamW, lr=1e-1)),
    "code": (lambda x: x + 1, lambda x: x + 2),
    "operations": (lambda x: x + 1, lambda x: x - 1),
    "names": (lambda x: x.sum(), lambda x: x.mean()),
    "defaults": (lambda x, by=1: x * by, lambda x, by=2: x * by),
    "classes": (nn.MSELoss(), nn.L1Loss()),
    "attributes": (nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss()),
    "objects": (Loss(1), Loss(2)),
    "methods": (Loss(1).__call__, Loss(2).__call__),
    "weights": (nn.Linear(2, 2), nn.Linear(2, 2)),
    "built in": (operator.add, operator.sub),
    "of torch": (F.mse_loss, F.l1_loss),
    "qualities": (mae(), rmse()),
    "closed-over numbers of qualities": (topk_error(1, 10), topk_error(5, 10)),
    "sets": ({1, 2}, {1, 3}),
    "bytes": (b"a", b"b"),
    "arrays": (np.zeros(2), np.ones(2)),
    "types of numbers": (torch.float16, torch.bfloat16),
    "members of an enumeration": (Unit.NUMBER, Unit.FRACTION),
    "slots": (Slotted(1), Slotted(2)),
    "modules": (operator, json),
    "constants": (lambda x: x in {"a", "b", "c"}, lambda x: x in {"a", "b", "d"}),
}


@pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS)
def test_what_does_another_thing_is_described_otherwise(one, other):
    """And what does the same, alike, in words of JSON."""
    assert json.dumps(described(one)) == json.dumps(described(one))
    assert json.dumps(described(one)) != json.dumps(described(other))


def test_an_equal_object_is_described_alike():
    """Whatever it keeps for itself."""
    assert described(Loss(1)) == described(Loss(1))
    assert described({"a": torch.ones(2)}) == described({"a": torch.ones(2)})


def test_another_process_describes_it_alike():
    """No address and no order of a set is in it."""
    program = (
        "import json\n"
        "from compress.modules.described import described\nfrom tests.modules.test_described import PAIRS\n"
        "print(json.dumps([described(one) for name, (one, _) in PAIRS.items() if name != 'weights']))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    here = [described(one) for name, (one, _) in PAIRS.items() if name != "weights"]
    assert json.loads(told) == json.loads(json.dumps(here))


def test_what_goes_round_in_a_circle_ends():
    """What was met before is known by its place."""
    one, other = Loss(1), Loss(2)
    one.weight, other.weight = other, one
    assert "Loss" in json.dumps(described(one))
