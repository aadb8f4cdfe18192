from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from compress.data import Augmentation
from compress.data.augment import augment
from compress.errors import ConfigError


def random_images(count: int, height: int, width: int) -> torch.Tensor:
    """``[count, 3, height, width]`` without black pixels, which padding could be mistaken for."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(min_value=0, max_value=3),
    st.booleans(),
    st.integers(min_value=2, max_value=6),
    st.integers(min_value=2, max_value=6),
    st.integers(min_value=0, max_value=2**31),
)
def test_every_image_is_a_window_of_its_padded_self(padding, flip, height, width, seed):
    """Each output is one of the windows of its own padded image, or with flip on, of one's mirror image."""
    images = random_images(5, height, width)
    given_images = images.clone()
    changed = augment(images, Augmentation(padding=padding, flip=flip), torch.Generator().manual_seed(seed))
    assert images.equal(given_images)
    assert changed.dtype == torch.uint8
    for before, after in zip(images, changed, strict=True):
        padded = F.pad(before, (padding,) * 4)
        windows = [
            padded[:, top : top + height, left : left + width]
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
        ]
        candidates = windows + [window.flip(2) for window in windows] if flip else windows
        assert any(after.equal(candidate) for candidate in candidates)


def test_images_of_a_batch_draw_their_own():
    """Equal images come out in every shift, mirrored and not: nothing is drawn for the batch as a whole."""
    images = random_images(1, 4, 4).expand(400, -1, -1, -1)
    shifted = augment(images, Augmentation(padding=1), torch.Generator().manual_seed(0))
    mirrored = augment(images, Augmentation(flip=True), torch.Generator().manual_seed(0))
    assert len(shifted.unique(dim=0)) == 9
    assert len(mirrored.unique(dim=0)) == 2


def test_augmentation_follows_its_generator():
    """The same seed gives the same images."""
    images, settings_ = random_images(8, 5, 5), Augmentation(padding=2, flip=True)
    first, again = (augment(images, settings_, torch.Generator().manual_seed(7)) for _ in range(2))
    assert first.equal(again)


def test_no_augmentation_changes_nothing():
    """Without padding and flip, images come out as they are."""
    images = random_images(3, 4, 4)
    assert augment(images, Augmentation(), torch.Generator()).equal(images)


def test_negative_padding_is_refused():
    """Padding below 0 is named with its value."""
    with pytest.raises(ConfigError, match="padding must be at least 0, got -1"):
        Augmentation(padding=-1)
