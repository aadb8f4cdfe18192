from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from compress.errors import ConfigError
from compress.pruning.batches import each_batch

X, Y = torch.arange(12.0).reshape(4, 3), torch.arange(4)
MODEL = nn.Linear(3, 2)


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
    (read,) = each_batch(MODEL, [batch])
    assert all(one.equal(other) for one, other in zip(read.inputs.args, args, strict=True))
    assert read.labels is labels or read.labels.equal(labels)


def test_inputs_may_have_names():
    """A mapping holds keyword arguments."""
    (read,) = each_batch(MODEL, [({"input": X}, Y)])
    assert read.inputs.args == ()
    assert read.inputs.kwargs["input"].equal(X)


def test_a_data_loader_gives_batches():
    """Torch's own loader of images with labels, and of images alone."""
    for dataset, with_labels in ((TensorDataset(X, Y), True), (TensorDataset(X), False)):
        read = list(each_batch(MODEL, DataLoader(dataset, batch_size=2)))
        assert torch.cat([batch.inputs.args[0] for batch in read]).equal(X)
        assert all((batch.labels is not None) == with_labels for batch in read)


def test_batches_are_moved_to_the_model():
    """Loaders give tensors on the CPU; the model may lie elsewhere."""
    (read,) = each_batch(nn.Linear(3, 2, device="meta"), [(X, {"class": Y})])
    assert read.inputs.args[0].device.type == read.labels["class"].device.type == "meta"


def test_what_is_no_batch_is_refused():
    """The message says what a batch may be."""
    with pytest.raises(ConfigError, match="must be a tensor, a tuple of arguments or a mapping of them, got int"):
        list(each_batch(MODEL, [3]))
