import gc
import random

import pytest
import torch
from torch import Tensor, nn

from compress.calling.inputs import Inputs
from compress.channels.groups import resolve
from compress.channels.trace import retrace, trace
from compress.errors import ModelError
from tests.nets import Net, between, conv, conv_bn, head

X = Inputs(args=(torch.zeros(1, 3, 8, 8),))


def test_a_trace_leaves_the_model_as_it_was():
    """Parameters, buffers, modes, hooks, inputs and random state are the same after a run that changes them all."""

    class Restless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 8, 1)
            self.register_buffer("count", torch.zeros(1))
            self.seen: list[int] = []

        def forward(self, x: Tensor) -> Tensor:
            self.count.add_(1)
            self.seen.append(1)
            x.add_(1.0)
            return self.a(x) * torch.rand(1)

    net = Restless().train()
    net.a.eval()
    x = torch.zeros(1, 3, 4, 4)
    state = torch.get_rng_state()
    trace(net, Inputs(args=(x,)))
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert not net.a.training
    assert net.count.item() == 0.0
    assert net.seen == []
    assert x.abs().sum() == 0.0
    assert not net.a._forward_hooks
    assert not net.a._forward_pre_hooks


def test_global_switches_come_back():
    """The fused attention path is off during a trace only, even if the trace fails."""
    assert torch.backends.mha.get_fastpath_enabled()
    seen = []

    def forward(_: Net, x: Tensor) -> Tensor:
        seen.append(torch.backends.mha.get_fastpath_enabled())
        return x.view(5, 7)

    with pytest.raises(ModelError):
        trace(Net(forward), X)
    assert set(seen) == {False}
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("collecting", [True, False])
def test_garbage_collection_comes_back_as_it_was(collecting):
    """It rests during a trace only, even if the trace fails; who had switched it off finds it off."""
    seen = []

    def forward(_: Net, x: Tensor) -> Tensor:
        seen.append(gc.isenabled())
        return x.view(5, 7)

    (gc.enable if collecting else gc.disable)()
    try:
        with pytest.raises(ModelError):
            trace(Net(forward), X)
        assert set(seen) == {False}
        assert gc.isenabled() is collecting
    finally:
        gc.enable()


def test_a_forward_pass_that_fails_is_told_in_one_sentence():
    """The message of the model's own error is kept, on one line."""

    def forward(_: Net, x: Tensor) -> Tensor:
        raise RuntimeError(f"no such {x.ndim}\nsecond line")

    with pytest.raises(ModelError, match=r"^the forward pass on the example inputs failed: no such 4$"):
        trace(Net(forward), X)


@pytest.mark.parametrize("output", [None, 3, "text", {"a": None}])
def test_a_model_without_output_tensors_is_refused(output):
    """Labels freeze the output; without one nobody would know what a cut may change."""
    with pytest.raises(ModelError, match="put out no tensor"):
        trace(Net(lambda _, __: output), X)


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (lambda a, b: (a, [b]), ("[0]", "[1][0]")),
        (lambda a, b: {"a": a, "more": [{"b": b}]}, ("'a'", "'more'[0]['b']")),
        (lambda a, b: type("Output", (), {})() if a is b else Output(a, b), ("'a'", "'b'")),
    ],
    ids=["tuple", "mapping", "object"],
)
def test_all_tensors_of_an_output_are_frozen(wrap, names):
    """Tuples, mappings and plain objects are looked into, and the reason says where it lies."""
    net = Net(lambda n, x: wrap(n.a(x), n.b(x)), a=conv(3, 8), b=conv(3, 8))
    channels = resolve(trace(net, X))
    reasons = {
        channels.slots[group.members[0]].tensor: group.reason
        for group in channels.groups
        if channels.slots[group.members[0]].dim == 0
    }
    assert (reasons["a.weight"], reasons["b.weight"]) == tuple(f"model output {name}" for name in names)


class Output:
    """A plain object as a model's output."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self.a, self.b = a, b


def test_reasons_name_operation_and_layer():
    """A reason says which operation in which module keeps a group whole."""

    class Sorter(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sort(dim=1).values

    net = nn.Sequential(conv_bn(3, 8), nn.Sequential(Sorter()), nn.Flatten(), head(512))
    reasons = {group.reason for group in resolve(trace(net, X)).groups}
    assert "unknown operation (aten.sort, layer '1.0')" in reasons


def test_a_retrace_reports_a_failure_as_a_fault():
    """What a cut breaks is no error, but points at the channels on which it broke."""
    net = between(lambda x: x.reshape(-1, 16, 8, 8))
    first = trace(net, X)
    net.b = conv(8, 16)
    second = retrace(net, [slot for slot in first.slots if not slot.tensor.startswith("b.")], first)
    assert len(second.faults) == 1
    assert "(layer 'b')" in second.faults[0].reason
    assert second.faults[0].suspects[0].size == 16


def test_other_random_generators_are_not_touched():
    """A trace draws nothing from Python's generator."""
    state = random.getstate()
    trace(between(torch.relu), X)
    assert random.getstate() == state
