from __future__ import annotations

import dataclasses
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812

from compress.calling.inputs import Inputs
from compress.errors import ConfigError
from compress.train import FitConfig, fit
from compress.train.distillation import soft_loss
from compress.train.mixing import cut_mixed
from compress.train.objective import Objective, Teacher, label_loss
from tests.train.test_fit import SHORT, same_state


def numbered(count, height, width):
    """Images of which every pixel says whose it is and where it lies."""
    places = torch.arange(float(height * width)).reshape(1, 1, height, width)
    return 1000 * torch.arange(float(count)).reshape(-1, 1, 1, 1) + places


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_each_pixel_is_the_images_own_or_its_partners_at_the_same_place(count, height, width, seed):
    """And as large a share of them as is said is its own; what was given is left as it was."""
    torch.manual_seed(seed)
    images, other = numbered(count, height, width), torch.rand(count, 4)
    inputs = Inputs(args=(images,), kwargs={"extra": other})
    mixed = cut_mixed(inputs)
    (found,) = mixed.inputs.args
    assert sorted(mixed.partners.tolist()) == list(range(count))
    own, partners = found == images, found == images[mixed.partners]
    assert (own | partners).all()
    for place in range(count):
        if mixed.partners[place] != place:
            assert int(own[place].sum()) == round(mixed.share * height * width)
    assert mixed.inputs.kwargs["extra"] is other
    assert torch.equal(images, numbered(count, height, width))


def test_the_rectangle_is_as_large_as_the_papers():
    """A share of the area that is uniform before what juts out is cut off, which a third of the image is left of.

    With a side s, s**2 uniform in 0..1, and the middle anywhere, s - s**2 / 4 of a side is left on average, so of the
    area E[(s - s**2 / 4)**2] = 1/2 - 1/5 + 1/48.
    """
    torch.manual_seed(0)
    inputs = Inputs(args=(torch.zeros(2, 1, 64, 64),))
    shares = torch.tensor([cut_mixed(inputs).share for _ in range(4000)])
    assert float(1 - shares.mean()) == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.015)


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_the_loss_is_that_of_labels_in_the_same_shares(net, alpha):
    """Cross-entropy with soft labels, and the distance to what the teacher puts out for the same mixed images."""
    config = FitConfig(cutmix=1.0, label_smoothing=0.0, temperature=2.0, alpha=alpha, channels_last=False)
    torch.manual_seed(3)
    wise = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    objective = Objective(
        config=config,
        forward=net.eval(),
        teacher=Teacher(model=wise),
        loss=label_loss(config),
        distance=partial(soft_loss, temperature=2.0),
        num_classes=3,
        bfloat16=False,
    )
    images, labels = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    torch.manual_seed(5)
    found = objective(Inputs(args=(images,)), labels)
    torch.manual_seed(5)
    torch.rand(())
    mixed = cut_mixed(Inputs(args=(images,)))
    assert 0 < mixed.share < 1
    (seen,) = mixed.inputs.args
    one_hot = F.one_hot(labels, 3).float()
    soft = mixed.share * one_hot + (1 - mixed.share) * one_hot[mixed.partners]
    expected = (1 - alpha) * F.cross_entropy(net(seen), soft) + alpha * soft_loss(net(seen), wise(seen), 2.0)
    torch.testing.assert_close(found, expected)


def test_some_batches_are_mixed_and_some_are_not(net, data):
    """In a share between 0 and 1; with 0 training is what it was before, to the bit, for nothing is drawn."""
    models = {
        share: fit(net, data, dataclasses.replace(SHORT, cutmix=share), progress=False).model
        for share in (0.0, 0.5, 1.0)
    }
    assert same_state(models[0.0], fit(net, data, SHORT, progress=False).model)
    assert not same_state(models[0.0], models[0.5])
    assert not same_state(models[0.5], models[1.0])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((torch.rand(4, 8),), "images .n, c, h, w. of one size, got none"),
        ((torch.rand(4, 1, 8, 8), torch.rand(4, 1, 6, 6)), "of one size, got 2 sizes"),
    ],
)
def test_what_are_no_images_is_refused(inputs, message):
    """Features have no place, and images of several sizes no common rectangle."""
    with pytest.raises(ConfigError, match=message):
        cut_mixed(Inputs(args=inputs))


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        (torch.rand(4), "float32 of shape .4."),
        (torch.zeros(4, 8, 8, dtype=torch.int64), "int64 of shape .4, 8, 8."),
        ([1, 2], "list"),
    ],
)
def test_what_are_no_labels_is_refused(net, labels, got):
    """A mask or a number cannot be shared out by area."""
    config = FitConfig(cutmix=1.0)
    objective = Objective(
        config=config,
        forward=net.eval(),
        teacher=None,
        loss=lambda outputs, _labels: outputs.square().mean(),
        distance=partial(soft_loss, temperature=2.0),
        num_classes=None,
        bfloat16=False,
    )
    with pytest.raises(ConfigError, match=f"an integer label for each of 4 images, got {got}"):
        objective(Inputs(args=(torch.rand(4, 3, 8, 8),)), labels)
