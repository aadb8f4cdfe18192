"""What the fresh process does, done in this one."""

from __future__ import annotations

import io
import json

import pytest
import torch

from compress.measure import child
from compress.measure.children import Conditions, saved
from tests.workloads import tiny_net


def failing(width: int) -> None:
    """A factory that has lost what it needs."""
    raise OSError(f"no such weights\nor such a width as {width}")


def silent(width: int) -> None:
    """A factory that fails without a word."""
    raise ValueError if width else OSError


def ask(request, state=None):
    """The answer to one request."""
    answers = io.StringIO()
    child._answer(json.dumps(request), state or child._State(), answers)
    (line,) = answers.getvalue().splitlines()
    return json.loads(line)


@pytest.fixture
def request_part():
    """How a child finds two models again."""
    conditions = Conditions(model_factory=tiny_net, model_args={"width": 4}, example_input=torch.ones(1, 3, 8, 8))
    net = tiny_net(width=4).eval()
    with saved({"dense": net, "compressed": net, "model": net}, conditions) as part:
        yield part


def test_models_are_loaded_and_timed(request_part):
    """A pair's time is told, and so many pairs are taken as asked for."""
    state = child._State()
    assert ask({"do": "load", "slowdown": 0.0, **request_part}, state)["pair_ms"] > 0
    pairs = ask({"do": "take_pairs", "count": 3}, state)["pairs"]
    assert len(pairs) == 3
    assert min(min(pair) for pair in pairs) > 0


def test_pairs_of_nothing_are_an_error():
    """Without models there is nothing to time."""
    assert ask({"do": "take_pairs", "count": 3}) == {"error": "RuntimeError: no models are loaded"}


@pytest.mark.parametrize(
    ("factory", "said"), [(failing, "OSError: or such a width as 4"), (silent, "ValueError: no message")]
)
def test_a_model_that_cannot_be_made_again_is_told_apart(request_part, factory, said):
    """The last line of the reason, and that it was met while rebuilding: another process may still have the model."""
    request = {"do": "load", "slowdown": 0.0, **request_part, "factory": f"{__name__}:{factory.__name__}"}
    assert ask(request) == {"error": said, "rebuilding": True}


def test_a_forward_pass_that_fails_is_no_failure_to_rebuild(request_part):
    """A model that cannot run elsewhere cannot be expected to run here."""
    answer = ask({"do": "load", "slowdown": 0.0, **request_part, "runtime": "abacus"})
    assert answer.keys() == {"error"}
    assert answer["error"].startswith("ConfigError: runtime must be one of")


def test_layouts_are_as_they_were(request_part):
    """A file keeps no strides: what was laid out pixel by pixel is so again."""
    request = {**request_part, "channels_last": ["model"], "channels_last_inputs": True}
    model, inputs = child._model(request, "model"), child._inputs(request)
    assert model.features[3].weight.is_contiguous(memory_format=torch.channels_last)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(inputs, torch.ones(1, 3, 8, 8))
    assert child._model(request, "dense").features[3].weight.is_contiguous()


def test_a_slow_down_is_spent_waiting(monkeypatch):
    """The clock, which moves on a second whenever it is read, is read until four times the call's second are over."""
    readings = iter(range(100))
    monkeypatch.setattr(child.time, "perf_counter", lambda: next(readings))
    assert child._slowed(lambda: "result", 4.0)() == "result"
    assert next(readings) == 6


def test_without_a_slow_down_a_call_is_left_alone():
    """Not even a clock is read."""
    call = io.StringIO().getvalue
    assert child._slowed(call, 0.0) is call
