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


def net_filled_with(value):
    """A network that is told from others by its weights; the dense ones of these tests are below 1."""
    net = tiny_net(width=4).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    return net


def load(state, *, dense, compressed, image, runtime, slowdown=0.0):
    """Have a pair of networks loaded, whose weights all are that value."""
    inputs = torch.full((1, 3, 8, 8), image)
    conditions = Conditions(model_factory=tiny_net, model_args={"width": 4}, example_input=inputs, runtime=runtime)
    with saved({"dense": net_filled_with(dense), "compressed": net_filled_with(compressed)}, conditions) as part:
        assert "pair_ms" in ask({"do": "load", "slowdown": slowdown, **part}, state)


def prepared_models(monkeypatch):
    """The weights of each model that is made ready from now on, in order; nothing is compiled for it."""
    made = []

    def prepare(model, _inputs, *, runtime):
        assert runtime
        made.append(next(model.parameters()).flatten()[0].item())
        return lambda _inputs: None

    monkeypatch.setattr("compress.artifacts.runtimes.prepare", prepare)
    return made


def role_of(value):
    """What a network with these weights was loaded as."""
    return "dense" if value < 1 else "compressed"


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


@pytest.mark.parametrize(
    ("weight", "image", "prepared"),
    [
        (0.0, 1.0, ["dense", "compressed", "compressed"]),
        (0.5, 1.0, ["dense", "compressed", "dense", "compressed"]),
        (0.0, 2.0, ["dense", "compressed", "dense", "compressed"]),
    ],
    ids=["same", "other weights", "other inputs"],
)
def test_a_dense_model_is_compiled_once(monkeypatch, weight, image, prepared):
    """What further models are compared with is kept, until its weights or its inputs are others."""
    made = prepared_models(monkeypatch)
    state = child._State()
    load(state, dense=0.0, compressed=1.0, image=1.0, runtime="inductor")
    load(state, dense=weight, compressed=2.0, image=image, runtime="inductor")
    assert [role_of(value) for value in made] == prepared
    assert made[-1] == 2.0


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "executorch"])
def test_a_runtime_of_files_is_given_the_file(runtime, monkeypatch):
    """Made by whoever asks, once; the process that measures makes none."""
    pytest.importorskip(runtime)
    made = prepared_models(monkeypatch)
    state = child._State()
    load(state, dense=0.25, compressed=0.5, image=1.0, runtime=runtime)
    assert made == []
    assert len(ask({"do": "take_pairs", "count": 2}, state)["pairs"]) == 2


def test_compiled_models_outlast_a_pair_that_nothing_compiles(monkeypatch):
    """Recipes without a compiler come between those with one; what costs nothing to prepare is not kept."""
    made = prepared_models(monkeypatch)
    state = child._State()
    for runtime in ("inductor", "eager", "eager", "inductor"):
        load(state, dense=0.0, compressed=1.0, image=1.0, runtime=runtime)
    assert made == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]


def test_a_second_look_at_a_pair_compiles_nothing(monkeypatch):
    """Neither of two models that are the same as before, nor one of them that now is to be slowed down."""
    made = prepared_models(monkeypatch)
    state = child._State()
    for slowdown in (0.0, 0.0, 0.1):
        load(state, dense=0.0, compressed=1.0, image=1.0, runtime="inductor", slowdown=slowdown)
    assert made == [0.0, 1.0]


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
    request = {**request_part, "channels_last": ["model"], "channels_last_inputs": [0]}
    model, inputs = child._model(request, "model"), child._inputs(request)
    assert model.features[3].weight.is_contiguous(memory_format=torch.channels_last)
    (tensor,) = inputs.args
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(tensor, torch.ones(1, 3, 8, 8))
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
