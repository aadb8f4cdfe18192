"""The data set that needs no download: scikit-learn's handwritten digits."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812

from compress.data.augment import Augmentation
from compress.data.memory import from_tensors
from compress.data.splits import ImageData, stratified

_TEST_EXAMPLES = 500
_SIDE = 16
# A digit leaves one or two of 8 pixels free around it, and its mirror image is another sign.
_AUGMENTATION = Augmentation(padding=1)


def digits() -> ImageData:
    """1,797 handwritten digits as ``[3, 16, 16]`` images: 1,297 to train on, 500 to test on, split by class.

    Enlarged from 8x8 by bilinear interpolation. The split and every pixel are the same on every machine.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes a second that other data sets need not pay

    bunch = load_digits()
    ink = torch.from_numpy(bunch.images)[:, None]  # [n, 1, 8, 8] float64, whole numbers from 0 to 16
    # Twice the size has weights that are multiples of 1/16, so this is exact, and so is the rounding below.
    sixteenths = F.interpolate(ink, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False) * 16
    images = ((sixteenths.long() * 255 + 128) // 256).to(torch.uint8).expand(-1, 3, -1, -1)
    labels = torch.from_numpy(bunch.target).long()
    train, test = stratified(labels, _TEST_EXAMPLES, seed=0)
    return from_tensors(
        "digits",
        train=(images[train], labels[train]),
        test=(images[test], labels[test]),
        classes=tuple(str(name) for name in bunch.target_names),
        augmentation=_AUGMENTATION,
    )
