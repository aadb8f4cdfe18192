from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.data import ImageData, Normalization, from_tensors
from compress.errors import ConfigError, DataError, ModelError
from compress.train import evaluate


def prescribed(logits: list[list[int]], labels: list[int]) -> ImageData:
    """Images that are their own logits: ``nn.Flatten()`` classifies them as told."""
    classes = len(logits[0])
    examples = (torch.tensor(logits, dtype=torch.uint8)[:, :, None, None], torch.tensor(labels))
    return from_tensors(
        "prescribed",
        train=examples,
        test=examples,
        classes=tuple(f"class {label}" for label in range(classes)),
        normalization=Normalization(mean=(0.0,) * classes, std=(1.0,) * classes),
    )


def bits(packed: bytes, count: int) -> list[int]:
    """The bits of an evaluation."""
    return np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=count).tolist()


def test_errors_and_bits_in_closed_form():
    """Three examples: right at once, right among five, wrong; the bits say which, in the split's order."""
    logits = [[9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4]]
    result = evaluate(nn.Flatten(), prescribed(logits, [0, 4, 5]).test)
    assert result.top1_error == pytest.approx(2 / 3)
    assert result.top5_error == pytest.approx(1 / 3)
    assert bits(result.top1_correct, 3) == [1, 0, 0]
    assert bits(result.top5_correct, 3) == [1, 1, 0]
    assert result.num_examples == 3


def test_fewer_than_five_classes_are_always_among_the_first_five():
    """With three classes the top-5 error is 0, whatever the model says."""
    result = evaluate(nn.Flatten(), prescribed([[0, 1, 2], [2, 1, 0]], [0, 2]).test)
    assert (result.top1_error, result.top5_error) == (1.0, 0.0)


def test_equal_logits_rank_by_class():
    """A model that tells nothing apart is right on class 0 only, and on the first five by top-5."""
    logits = [[3] * 7] * 7
    result = evaluate(nn.Flatten(), prescribed(logits, list(range(7))).test)
    assert bits(result.top1_correct, 7) == [1, 0, 0, 0, 0, 0, 0]
    assert bits(result.top5_correct, 7) == [1, 1, 1, 1, 1, 0, 0]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 9), min_size=6, max_size=6), st.integers(0, 5)), min_size=1, max_size=30
    ),
    st.integers(min_value=1, max_value=40),
)
def test_the_batch_size_changes_nothing_and_sorting_agrees(examples, batch_size):
    """Whatever the batch size, an example is right where a stable sort puts its class among the first."""
    logits, labels = [list(row) for row, _ in examples], [label for _, label in examples]
    result = evaluate(nn.Flatten(), prescribed(logits, labels).test, batch_size=batch_size)
    orders = [sorted(range(6), key=lambda label, row=row: -row[label]) for row in logits]
    top1 = [int(label in order[:1]) for order, label in zip(orders, labels, strict=True)]
    top5 = [int(label in order[:5]) for order, label in zip(orders, labels, strict=True)]
    assert bits(result.top1_correct, len(examples)) == top1
    assert bits(result.top5_correct, len(examples)) == top5
    assert result.top1_error == pytest.approx(1 - sum(top1) / len(top1))


def test_the_model_comes_out_as_it_went_in(net, data):
    """Dropout is off and statistics stand still meanwhile; each module is back in its own mode, failing or not."""
    net.train()
    net[1].eval()
    modes = [module.training for module in net.modules()]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    first, again = evaluate(net, data.test), evaluate(net, data.test)
    assert first == again
    with pytest.raises(ModelError):
        evaluate(net, prescribed([[1, 2]], [0]).test)
    assert [module.training for module in net.modules()] == modes
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())


def test_the_callers_autocast_is_not_used(net, data):
    """An error rate is measured in float32 also where the caller has autocast on."""
    seen = []
    net[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        evaluate(net, data.test)
    assert set(seen) == {torch.float32}


def test_an_exported_graph_can_be_evaluated(net, data):
    """A graph that torch.export made refuses to change its mode; it is evaluated in the one that it has."""
    batch = torch.export.Dim("batch", min=2)
    exported = torch.export.export(net.eval(), (torch.zeros(4, 3, 8, 8),), dynamic_shapes=({0: batch},)).module()
    assert evaluate(exported, data.test) == evaluate(net, data.test)


class Broken(nn.Module):
    def forward(self, _images):
        raise ValueError("no such thing\nand more")


class Pair(nn.Module):
    def forward(self, images):
        return images.flatten(1), images


class NotANumber(nn.Module):
    def forward(self, images):
        return images.flatten(1) * torch.tensor([1.0, float("nan")])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (NotANumber(), "a model's outputs must be numbers to be judged, this one put out NaN"),
        (Pair(), r"must put out logits of shape \[2, 2\], this one put out tuple"),
        (nn.Sequential(nn.Flatten(), nn.Linear(2, 3)), r"of shape \[2, 2\], this one put out \[2, 3\]"),
        (nn.Identity(), r"of shape \[2, 2\], this one put out \[2, 2, 1, 1\]"),
        (Broken(), r"the forward pass on the test examples failed: no such thing"),
    ],
)
def test_a_model_that_cannot_be_judged_is_refused(model, message):
    """NaN, another width, another type or a crash: one sentence, not a number that looks like an error rate."""
    with pytest.raises(ModelError, match=f"{message}$"):
        evaluate(model, prescribed([[1, 2], [2, 1]], [0, 1]).test)


def test_an_empty_split_is_refused(data):
    """An error rate of no examples does not exist."""
    empty = data.test.subset(torch.empty(0, dtype=torch.int64))
    with pytest.raises(DataError, match="at least one example to evaluate on"):
        evaluate(nn.Flatten(), empty)


def test_batches_of_nothing_are_refused(net, data):
    """In one sentence, before anything is divided."""
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        evaluate(net, data.test, batch_size=0)


@pytest.mark.parametrize("device", ["nowhere", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device, net, data):
    """A device that this machine does not have is named."""
    with pytest.raises(ConfigError, match=f"device must be one that this machine has, got '{device}'"):
        evaluate(net, data.test, device=device)
