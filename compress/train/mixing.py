"""CutMix: images of which a part comes from another image of the batch.

Source: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019,
equations 1 and 2, with alpha = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from compress.calling.inputs import Inputs
from compress.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """A batch whose images were mixed.

    Attributes:
        inputs: those of the batch, with mixed images.
        partners: ``[n]`` integers: the place in the batch of the image that each one has its other part from.
        share: of each image that is its own, in 0..1; its label weighs as much.
    """

    inputs: Inputs
    partners: Tensor
    share: float


def cut_mixed(inputs: Inputs) -> Mixed:
    """The same rectangle of every image, of random place and size, from another image of the batch in random order.

    Raises:
        ConfigError: if there are no images ``[n, c, h, w]`` among the inputs, or they are of several sizes.
    """
    images = [tensor for tensor in inputs.tensors if _is_images(tensor)]
    sizes = {(len(one), *one.shape[2:]) for one in images}
    if len(sizes) != 1:
        got = f"{len(sizes)} sizes" if sizes else "none"
        raise ConfigError(f"cutmix takes images [n, c, h, w] of one size, got {got}")
    ((count, height, width),) = sizes
    rows, columns = _rectangle(height, width)
    partners = torch.randperm(count)

    def mixed(tensor: Tensor) -> Tensor:
        if not _is_images(tensor):
            return tensor
        result = tensor.clone()
        result[:, :, rows, columns] = tensor[partners.to(tensor.device)][:, :, rows, columns]
        return result

    args, kwargs = tree_map_only(Tensor, mixed, (inputs.args, dict(inputs.kwargs)))
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return Mixed(inputs=Inputs(args=args, kwargs=kwargs), partners=partners, share=1 - area / (height * width))


def _is_images(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and tensor.is_floating_point()  # noqa: PLR2004 - [n, c, h, w]


def _rectangle(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns: its share of the area is uniform in 0..1, its middle anywhere, what juts out is cut off."""
    area, row, column = torch.rand(3).tolist()
    side = math.sqrt(area)
    return _around(row * height, side * height, height), _around(column * width, side * width, width)


def _around(middle: float, length: float, whole: int) -> slice:
    return slice(max(0, round(middle - length / 2)), min(whole, round(middle + length / 2)))
