"""Image files: read one, decode many into memory, or read them batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from compress.data.memory import Normalization
from compress.data.splits import generator, index_batches
from compress.errors import DataError
from compress.system.processes import num_usable_cpus
from compress.system.progress import track

if TYPE_CHECKING:
    from torchvision.transforms import v2

IMAGENET_STATISTICS = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# The share of a resized image's side that the center crop keeps, usual since Krizhevsky et al., NeurIPS 2012.
_CROP_SHARE = 224 / 256
_CHUNK = 256
_MANY = 10_000  # files, from where on decoding takes long enough to show how far it is
_MOST_WORKERS = 8


def read_image(path: Path) -> Image.Image:
    """The image in a file, as RGB.

    Raises:
        DataError: if the file is missing, damaged or no image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    # Pillow's plugins raise SyntaxError and ValueError too on damaged files.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as cause:
        raise DataError(f"an image file must be whole and readable, {path} is not") from cause


def decode(paths: Sequence[Path], size: tuple[int, int]) -> Tensor | None:
    """``[n, 3, height, width]`` uint8, or None if an image is not of ``size`` (width, height).

    Raises:
        DataError: if a file cannot be read.
    """
    width, height = size
    images = np.empty((len(paths), 3, height, width), dtype=np.uint8)

    def fill(start: int) -> bool:
        for index, path in enumerate(paths[start : start + _CHUNK], start):
            image = read_image(path)
            if image.size != size:
                return False
            images[index] = np.asarray(image).transpose(2, 0, 1)
        return True

    starts = range(0, len(paths), _CHUNK)
    with ThreadPoolExecutor(num_workers()) as pool:
        done = pool.map(fill, starts)
        complete = all(track(done, "decoding images", shown=len(paths) >= _MANY, total=len(starts)))
    return torch.from_numpy(images) if complete else None


def num_workers() -> int:
    """How many threads or processes may read files at once: the processors this process may use, 8 at most."""
    return min(_MOST_WORKERS, num_usable_cpus())


@dataclass(frozen=True, kw_only=True, eq=False)
class FileSplit:
    """A :class:`~compress.data.Split` of image files of any size, read when a batch needs them.

    Attributes:
        paths: the files.
        labels: ``[n]`` int64.
        num_classes: how many classes there are.
        image_size: side of the square images in a batch.
        normalization: of the images in a batch.
    """

    paths: tuple[Path, ...]
    labels: Tensor
    num_classes: int
    image_size: int
    normalization: Normalization = IMAGENET_STATISTICS

    def __len__(self) -> int:
        return len(self.paths)

    def batches(
        self, batch_size: int, *, training: bool = False, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See :meth:`compress.data.Split.batches`."""
        plan = index_batches(len(self), batch_size, training=training, seed=seed, rank=rank, world_size=world_size)
        loader = DataLoader(
            _Images(self.paths, _transform(self.image_size, training=training), seed),
            batch_sampler=[indices.tolist() for indices in plan],
            num_workers=num_workers() if len(plan) > 1 else 0,
            collate_fn=_stack,
            # Without one of its own the loader would draw from the caller's.
            generator=generator(seed),
        )
        for indices, images in zip(plan, loader, strict=True):
            if isinstance(images, str):
                raise DataError(images)
            yield self.normalization(images), self.labels[indices]

    def subset(self, indices: Tensor) -> FileSplit:
        """See :meth:`compress.data.Split.subset`."""
        return replace(self, paths=tuple(self.paths[index] for index in indices.tolist()), labels=self.labels[indices])


class _Images(Dataset[Tensor | str]):
    """Transformed images, or for a file that cannot be read, the sentence that says so.

    An exception would arrive from a worker process with that process's traceback for its text.
    """

    def __init__(self, paths: Sequence[Path], transform: v2.Transform, seed: int) -> None:
        self.paths = paths
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            image = read_image(self.paths[index])
        except DataError as error:
            return str(error)
        # Seeded by example, so that a batch does not depend on which worker made it, or on how many there are.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed * len(self.paths) + index)
            transformed: Tensor = self.transform(image)
        return transformed


def _transform(size: int, *, training: bool) -> v2.Transform:
    """From an image of any size to ``[3, size, size]`` uint8: cropped at random for training, else at the center."""
    # More than a second of imports, which nobody whose images lie in memory should wait for.
    from torchvision.transforms import v2  # noqa: PLC0415

    if training:
        return v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    return v2.Compose([v2.Resize(round(size / _CROP_SHARE), antialias=True), v2.CenterCrop(size), v2.PILToTensor()])


def _stack(images: list[Tensor | str]) -> Tensor | str:
    """A batch, or the first thing that is wrong with it."""
    tensors: list[Tensor] = []
    for image in images:
        if isinstance(image, str):
            return image
        tensors.append(image)
    return torch.stack(tensors)
