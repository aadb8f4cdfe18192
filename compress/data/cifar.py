"""CIFAR-10 and CIFAR-100, from their authors' binary archives or as folders of images.

The more usual "python" archives are pickles, which run whatever they contain; nothing is ever unpickled here. The
binary ones are plain records, read straight from the archive once its MD5 sum is the published one.

Wherever the images come from, they are put into one order: a baseline keeps which of them were classified right.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009;
https://www.cs.toronto.edu/~kriz/cifar.html (record layout and MD5 sums).
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compress.data.folder import image_folder
from compress.data.memory import TensorSplit, from_tensors
from compress.data.splits import ImageData
from compress.errors import DataError
from compress.system.files import cache_folder

_URL = "https://www.cs.toronto.edu/~kriz/"
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_NUM_TRAIN, _NUM_TEST = 50_000, 10_000


@dataclass(frozen=True, kw_only=True)
class _Archive:
    """Where things lie in an archive; ``label_bytes`` come before an image's pixels, the last is its class."""

    name: str
    file: str
    md5: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    classes: str
    label_bytes: int


_CIFAR10 = _Archive(
    name="cifar10",
    file="cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    train=tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
    test=("cifar-10-batches-bin/test_batch.bin",),
    classes="cifar-10-batches-bin/batches.meta.txt",
    label_bytes=1,
)
_CIFAR100 = _Archive(
    name="cifar100",
    file="cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    train=("cifar-100-binary/train.bin",),
    test=("cifar-100-binary/test.bin",),
    classes="cifar-100-binary/fine_label_names.txt",
    label_bytes=2,
)


def cifar10(root: str | Path | None = None) -> ImageData:
    """50,000 training and 10,000 test images ``[3, 32, 32]`` in 10 classes.

    Args:
        root: holds ``cifar10/train/<class>/*.png`` and ``cifar10/test/<class>/*.png``, or else the archive
            ``cifar-10-binary.tar.gz``, downloaded into it if it is not there; the user's cache folder if left out.

    Raises:
        DataError: if the archive is neither there nor can be downloaded, or the folder holds other images.
    """
    return _load(_CIFAR10, root)


def cifar100(root: str | Path | None = None) -> ImageData:
    """50,000 training and 10,000 test images ``[3, 32, 32]`` in 100 classes.

    Args:
        root: holds ``cifar100/train/<class>/*.png`` and ``cifar100/test/<class>/*.png``, or else the archive
            ``cifar-100-binary.tar.gz``, downloaded into it if it is not there; the user's cache folder if left out.

    Raises:
        DataError: if the archive is neither there nor can be downloaded, or the folder holds other images.
    """
    return _load(_CIFAR100, root)


def _load(archive: _Archive, root: str | Path | None) -> ImageData:
    folder = cache_folder() if root is None else Path(root).expanduser()
    if (folder / archive.name).is_dir():
        return _from_images(folder / archive.name, archive)
    # More than a second of imports, which nobody with other data should wait for.
    from torchvision.datasets.utils import download_url  # noqa: PLC0415

    try:
        download_url(_URL + archive.file, folder, archive.file, archive.md5)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{archive.name} could not be downloaded ({error}): put {archive.file} into {folder} yourself,"
            f" or its images into {folder / archive.name}/train/<class> and test/<class>"
        ) from error
    return _read(folder / archive.file, archive)


def _from_images(folder: Path, archive: _Archive) -> ImageData:
    """The data set as image files; its authors' class names are in alphabetical order, as folders are."""
    data = image_folder(folder)
    train, test = data.train, data.test
    if not (isinstance(train, TensorSplit) and isinstance(test, TensorSplit)) or (
        (len(train), len(test), data.image_shape) != (_NUM_TRAIN, _NUM_TEST, _SHAPE)
    ):
        raise DataError(
            f"{archive.name} must be {_NUM_TRAIN:,} training and {_NUM_TEST:,} test images of 32x32 pixels, {folder}"
            f" holds {len(train):,} and {len(test):,} of {data.image_shape[2]}x{data.image_shape[1]}"
        )
    return _in_order(archive, (train.images, train.labels), (test.images, test.labels), data.classes)


def _in_order(
    archive: _Archive, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: tuple[str, ...]
) -> ImageData:
    """Both splits ``(images, labels)`` sorted by class, and within a class by pixels."""

    def ordered(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        keys = [(label, image.tobytes()) for label, image in zip(labels.tolist(), images.numpy(), strict=True)]
        order = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__))
        return images[order], labels[order]

    return from_tensors(archive.name, train=ordered(*train), test=ordered(*test), classes=classes)


def _read(path: Path, archive: _Archive) -> ImageData:
    """The data set in the archive at ``path``, whose content is not trusted to be whole."""
    try:
        with tarfile.open(path) as tar:
            names = _member(tar, archive.classes, path).decode().split()
            train = b"".join(_member(tar, member, path) for member in archive.train)
            test = b"".join(_member(tar, member, path) for member in archive.test)
    except (OSError, EOFError, tarfile.TarError, UnicodeDecodeError) as error:
        raise DataError(f"an archive must be a whole {archive.file}, got {path} ({error})") from error
    return _in_order(
        archive,
        _records(train, archive.label_bytes, path),
        _records(test, archive.label_bytes, path),
        tuple(names),
    )


def _member(tar: tarfile.TarFile, name: str, path: Path) -> bytes:
    try:
        file = tar.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise DataError(f"the archive {path} must hold a file {name}")
    return file.read()


def _records(content: bytes, label_bytes: int, path: Path) -> tuple[Tensor, Tensor]:
    """Images ``[n, 3, 32, 32]`` uint8 and labels ``[n]``; a record is its labels, then its red, green, blue planes."""
    length = label_bytes + _PIXELS
    if not content or len(content) % length:
        raise DataError(f"the archive {path} must hold records of {length} bytes, got {len(content)} bytes of them")
    # A bytearray, because a tensor must be writable.
    records = torch.from_numpy(np.frombuffer(bytearray(content), dtype=np.uint8).reshape(-1, length))
    return records[:, label_bytes:].reshape(-1, *_SHAPE), records[:, label_bytes - 1].long()
