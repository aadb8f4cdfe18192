"""Random changes to training images, made for a whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from compress.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training does to an image; each image of a batch draws its own.

    Attributes:
        padding: black pixels put around it before a window of its old size is cropped at random; 0 for no crop.
        flip: whether half of the images are mirrored left to right.
    """

    padding: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ConfigError(f"padding must be at least 0, got {self.padding}")


# He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
CROP_AND_FLIP = Augmentation(padding=4, flip=True)


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """``images: [n, c, h, w]`` to as many of the same shape and type; the given ones are untouched."""
    n, _, height, width = images.shape
    padding = augmentation.padding
    if padding:
        windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        # Drawn on the CPU, so that they are the same on every device.
        top, left = torch.randint(2 * padding + 1, (2, n), generator=generator).to(images.device)
        images = windows[torch.arange(n, device=images.device), :, top, left]
    if augmentation.flip:
        mirrored = (torch.rand(n, generator=generator) < 0.5).to(images.device)  # noqa: PLR2004
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images
