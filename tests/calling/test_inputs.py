from __future__ import annotations

import threading

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from compress.calling.inputs import Inputs, each_batch, inputs_of, tensors_in
from compress.errors import ConfigError

X, Y = torch.arange(12.0).reshape(4, 3), torch.arange(4)


@pytest.mark.parametrize(
    ("batch", "args", "labels"),
    [
        (X, (X,), None),
        ((X, Y), (X,), Y),
        ([X, Y], (X,), Y),
        ((X,), (X,), None),
        (((X, X), Y), (X, X), Y),
        ((X, None), (X,), None),
        ((X, X, X), (X, X, X), None),
    ],
    ids=["inputs", "pair", "list", "one", "two inputs", "no labels", "three inputs"],
)
def test_inputs_may_come_with_labels(batch, args, labels):
    """Two are inputs and labels; anything else is what the model is called with."""
    (read,) = each_batch([batch])
    assert all(one.equal(other) for one, other in zip(read.inputs.args, args, strict=True))
    assert read.targets is labels or read.targets.equal(labels)


def test_inputs_may_have_names():
    """A mapping holds keyword arguments."""
    (read,) = each_batch([({"input": X}, Y)])
    assert read.inputs.args == ()
    assert read.inputs.kwargs["input"].equal(X)


def test_a_data_loader_gives_batches():
    """Torch's own loader of images with labels, and of images alone."""
    for dataset, with_labels in ((TensorDataset(X, Y), True), (TensorDataset(X), False)):
        read = list(each_batch(DataLoader(dataset, batch_size=2)))
        assert torch.cat([batch.inputs.args[0] for batch in read]).equal(X)
        assert all((batch.targets is not None) == with_labels for batch in read)


def test_batches_are_moved_to_a_device():
    """Loaders give tensors on the CPU; the model may lie elsewhere."""
    (read,) = each_batch([(X, {"class": Y})], device=torch.device("meta"))
    assert read.inputs.args[0].device.type == read.targets["class"].device.type == "meta"


def test_what_is_no_batch_is_refused():
    """The message says what a batch may be."""
    with pytest.raises(ConfigError, match="must be a tensor, a tuple of arguments or a mapping of them, got int"):
        list(each_batch([3]))


def test_two_tensors_are_arguments_where_the_model_takes_two():
    """An example of two positional arguments tells that a batch of two tensors is no pair of inputs and targets."""
    example = inputs_of((X, Y))
    (alone,), (paired,) = each_batch([(X, Y)], like=example), each_batch([((X, Y), Y)], like=example)
    assert len(alone.inputs.args) == len(paired.inputs.args) == 2
    assert alone.targets is None
    assert paired.targets is Y


def test_inputs_of_any_structure_are_moved_and_listed():
    """Tensors in nested arguments keep their order; what is no tensor stays as it is."""
    inputs = Inputs(args=(X, [Y, 3]), kwargs={"mask": (X,), "name": "mean"})
    moved = inputs.to(torch.device("meta"))
    assert [tensor.shape for tensor in inputs.tensors] == [tensor.shape for tensor in moved.tensors]
    assert all(tensor.is_meta for tensor in moved.tensors)
    assert (moved.args[1][1], moved.kwargs["name"]) == (3, "mean")


def test_what_cannot_be_gone_through_holds_no_tensors():
    """A cache whose own code fails when it is gone through hinders nothing; what lies beside it is found."""

    class Stubborn:
        def __iter__(self):
            raise AttributeError("nothing to go through")

    tensor = torch.ones(2)
    assert list(tensors_in({"cache": Stubborn(), "logits": [tensor]})) == [tensor]


def test_a_call_is_given_a_copy_and_a_measurement_the_tensors_themselves():
    """What a forward pass writes into its inputs, of any structure, is seen in those that were lent alone."""

    class Held:
        def __init__(self, tensor):
            self.tensor = tensor

    def write(x, *, held):
        held.tensor.add_(1)
        return x.add_(1)

    x, held = torch.zeros(2), Held(torch.zeros(2))
    inputs = Inputs(args=(x,), kwargs={"held": held})
    assert float(inputs.call(write).sum()) == 2
    assert float(x.sum() + held.tensor.sum()) == 0
    assert inputs.lend_to(write) is x
    assert float(x.sum() + held.tensor.sum()) == 4


def test_what_cannot_be_copied_is_handed_on():
    """Beside it tensors are copied still, those with a gradient's history too."""
    weight = torch.ones(2, requires_grad=True)
    lock = threading.Lock()
    copied = Inputs(args=(weight * 2, [X]), kwargs={"lock": lock}).copy()
    assert copied.kwargs["lock"] is lock
    assert copied.args[1][0] is not X
    copied.args[0].sum().backward()
    assert torch.equal(weight.grad, torch.full((2,), 2.0))
