"""Labelled images: the embedded digits, CIFAR-10 and CIFAR-100, any folder or tensors; and batches of any task."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from compress.data.augment import CROP_AND_FLIP as CROP_AND_FLIP
from compress.data.augment import Augmentation as Augmentation
from compress.data.cifar import cifar10 as cifar10
from compress.data.cifar import cifar100 as cifar100
from compress.data.embedded import digits as digits
from compress.data.folder import image_folder as image_folder
from compress.data.loaders import AnySplit as AnySplit
from compress.data.loaders import LoaderData as LoaderData
from compress.data.loaders import LoaderSplit as LoaderSplit
from compress.data.loaders import from_loaders as from_loaders
from compress.data.memory import Normalization as Normalization
from compress.data.memory import TensorSplit as TensorSplit
from compress.data.memory import from_tensors as from_tensors
from compress.data.memory import resident as resident
from compress.data.splits import ImageData as ImageData
from compress.data.splits import Split as Split
from compress.errors import ConfigError

Data = ImageData | LoaderData
"""A training and a test split, and what identifies them."""

_BY_NAME: Mapping[str, Callable[[], ImageData]] = {"digits": digits, "cifar10": cifar10, "cifar100": cifar100}
_FOLDER = "imagefolder:"


def load_data(spec: str) -> ImageData:
    """The data set that ``spec`` names: ``digits``, ``cifar10``, ``cifar100`` or ``imagefolder:DIR``.

    Raises:
        ConfigError: if ``spec`` is none of these.
        DataError: if the data set is missing or not what it must be.
    """
    directory = spec.removeprefix(_FOLDER)
    if spec.startswith(_FOLDER) and directory:
        return image_folder(directory)
    if spec not in _BY_NAME:
        raise ConfigError(f"a data set must be one of {', '.join(_BY_NAME)}, {_FOLDER}DIR, got {spec!r}")
    return _BY_NAME[spec]()
