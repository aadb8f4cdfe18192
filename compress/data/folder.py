"""Any folder of images: ``DIR/train/<class>/*.png`` and ``DIR/test/<class>/*.png``."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from compress.data.files import FileSplit, decode, num_workers, read_image
from compress.data.memory import from_tensors
from compress.data.splits import ImageData
from compress.data.storage import load_tensors, save_tensors
from compress.errors import ConfigError, DataError
from compress.system.files import cache_folder

_SMALL_SIDE = 64
_SMALL_BYTES = 512 * 2**20
_DEFAULT_SIZE = 224
# Part of what a cached folder is recognized by: raise it where the same files come to be read differently.
_CACHE_VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class _Files:
    """The images of one split, class by class."""

    root: Path
    names: tuple[str, ...]  # paths in ``root``; text, because there may be a million of them
    labels: Tensor

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files themselves."""
        return tuple(self.root / name for name in self.names)


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """What lies under a directory, before any image is read."""

    root: Path
    classes: tuple[str, ...]
    train: _Files
    test: _Files


def image_folder(directory: str | Path, image_size: int | None = None) -> ImageData:
    """The images under ``directory``, as RGB, one folder for each class: ``train/<class>/``, ``test/<class>/``.

    Images of one small size (64 pixels a side at most, 512 MiB decoded at most) are decoded once, kept in memory and
    in the user's cache folder, and augmented by crop and flip. Others are read from disk batch by batch: resized and
    center-cropped, for training cropped at random scale and flipped, and normalized by the statistics of ImageNet,
    as torchvision's pretrained models expect.

    Args:
        directory: holds ``train`` and ``test``.
        image_size: side of the square images a batch holds; left out: small images as they are, others 224.

    Raises:
        ConfigError: if ``image_size`` is below 1.
        DataError: if a folder is missing or empty, training and test classes differ or are fewer than two, or an
            image cannot be read.
    """
    if image_size is not None and image_size < 1:
        raise ConfigError(f"image_size must be at least 1, got {image_size}")
    folder = _scan(Path(directory).expanduser())
    tensors, digests = _content(folder, image_size)
    name = f"imagefolder-{folder.root.resolve().name}"
    if tensors:
        data = from_tensors(
            name,
            train=(tensors["train"], folder.train.labels),
            test=(tensors["test"], folder.test.labels),
            classes=folder.classes,
        )
        return replace(data, sha256=digests["test"], train_sha256=digests["train"])
    side = image_size or _DEFAULT_SIZE
    train, test = (
        FileSplit(paths=files.paths, labels=files.labels, num_classes=len(folder.classes), image_size=side)
        for files in (folder.train, folder.test)
    )
    return ImageData(
        name=name,
        classes=folder.classes,
        train=train,
        test=test,
        sha256=digests["test"],
        train_sha256=digests["train"],
        image_shape=(3, side, side),
    )


def _scan(root: Path) -> _Folder:
    """Find the image files, and refuse a folder that is no data set."""
    classes, test_classes = _classes(root / "train"), _classes(root / "test")
    if classes != test_classes:
        differing = min(set(classes) ^ set(test_classes))
        missing = "test" if differing in classes else "train"
        raise DataError(f"train and test must hold the same classes, {root / missing} has no folder {differing!r}")
    if len(classes) == 1:
        raise DataError(f"a data set must have at least two classes, got only {classes[0]!r} (in {root})")
    return _Folder(
        root=root, classes=classes, train=_files(root / "train", classes), test=_files(root / "test", classes)
    )


def _classes(folder: Path) -> tuple[str, ...]:
    """The names of the folders in ``folder``; an image's label is the index of its class in them."""
    if not folder.is_dir():
        raise DataError(f"an image folder must hold train/<class>/ and test/<class>/, there is no folder {folder}")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(f"a split must hold a folder for each class, {folder} holds none")
    return tuple(names)


def _files(folder: Path, classes: tuple[str, ...]) -> _Files:
    # More than a second of imports, which nobody with other data should wait for.
    from torchvision.datasets.folder import IMG_EXTENSIONS  # noqa: PLC0415

    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            f"{Path(parent).relative_to(folder).as_posix()}/{file}"
            for parent, _, files in os.walk(folder / name)
            for file in files
            if file.lower().endswith(IMG_EXTENSIONS) and not file.startswith(".")
        )
        if not found:
            raise DataError(
                f"a class must have at least one image ({', '.join(IMG_EXTENSIONS)}), {folder / name} has none"
            )
        names += found
        labels += [label] * len(found)
    return _Files(root=folder, names=tuple(names), labels=torch.tensor(labels))


def _content(folder: _Folder, image_size: int | None) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
    """Digests of both splits, and their pixels if they are small: from the cache if nothing changed since."""
    fingerprint = _fingerprint(folder, image_size)
    place = hashlib.sha256(os.fsencode(folder.root.resolve())).hexdigest()[:16]
    cached = cache_folder() / f"imagefolder-{place}.safetensors"
    with contextlib.suppress(DataError):
        tensors, digests = load_tensors(cached, DataError)
        if digests.get("fingerprint") == fingerprint:
            return tensors, digests
    tensors = _small_images(folder, image_size)
    digests = {
        "fingerprint": fingerprint,
        "test": _digest_of_bytes(folder.test, image_size),
        # What is too large for memory is also too large to be read once for its digest alone.
        "train": _digest_of_bytes(folder.train, image_size) if tensors else _digest_of_sizes(folder.train),
    }
    # Without the cache the next start is slower, and that is all: a full disk or a read-only home is no error here.
    with contextlib.suppress(DataError):
        save_tensors(cached, tensors, digests, DataError)
    return tensors, digests


def _small_images(folder: _Folder, image_size: int | None) -> dict[str, Tensor]:
    """Both splits decoded, ``[n, 3, h, w]`` uint8, if they are small and all of one size; else nothing."""
    size = read_image(folder.train.root / folder.train.names[0]).size
    num_bytes = 3 * size[0] * size[1] * (len(folder.train.names) + len(folder.test.names))
    if max(size) > _SMALL_SIDE or num_bytes > _SMALL_BYTES or size != (image_size or size[0], image_size or size[1]):
        return {}
    images: dict[str, Tensor] = {}
    for name, files in (("test", folder.test), ("train", folder.train)):
        decoded = decode(files.paths, size)
        if decoded is None:
            return {}
        images[name] = decoded
    return images


def _fingerprint(folder: _Folder, image_size: int | None) -> str:
    """Changes whenever a file does, without reading any."""
    digest = hashlib.sha256(f"{_CACHE_VERSION} {image_size}".encode())
    for files in (folder.train, folder.test):
        for name in files.names:
            status = os.stat(f"{files.root}/{name}")  # noqa: PTH116 - pathlib takes twice as long over many files
            digest.update(os.fsencode(f"{files.root.name}/{name}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    return digest.hexdigest()


def _digest_of_bytes(files: _Files, image_size: int | None) -> str:
    """Hex sha256 over the size images are cut to, and every file's path in the split and content."""
    digest = hashlib.sha256(str(image_size).encode())
    with ThreadPoolExecutor(num_workers()) as pool:
        contents = pool.map(lambda path: hashlib.sha256(path.read_bytes()).digest(), files.paths)
        for name, content in zip(files.names, contents, strict=True):
            digest.update(os.fsencode(name) + b"\0" + content)
    return digest.hexdigest()


def _digest_of_sizes(files: _Files) -> str:
    """Hex sha256 over every file's path in the split and number of bytes."""
    digest = hashlib.sha256()
    for name, path in zip(files.names, files.paths, strict=True):
        digest.update(os.fsencode(f"{name}\0{path.stat().st_size}\n"))
    return digest.hexdigest()
