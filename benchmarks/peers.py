"""What is left of a trained network once channels are cut, and what each repair without training gets back of it.

Run ``python benchmarks/peers.py DIR`` with CIFAR-100 as folders of images under DIR: ``train/<class>/*.png`` and
``test/<class>/*.png``. It prints a table in Markdown: for each share of channels removed, by l1 from every layer alike,
the top-1 error of the network as it was cut, with the statistics of its batch norms measured anew on augmented images
(``recalibrate``), and with its layers fitted again on as many plain ones (``reconstruct``); and the seconds each took.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

import compress
from compress.data import ImageData, Split
from compress.models import googlenet
from compress.recipe.training_batches import TrainingBatches

_BATCH_SIZE = 64


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", help="holds the folders train and test")
    parser.add_argument("--ratio", type=float, nargs="+", default=[0.2, 0.375], help="share of the channels removed")
    parser.add_argument("--calibration", type=int, default=512, help="training images that a repair sees")
    parser.add_argument("--images", type=int, default=10_000, help="test images, chosen by a fixed seed")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = compress.image_folder(given.directory)
    test = _chosen(data, given.images)
    dense = googlenet(weights="cifar100").eval()
    print(f"dense: {_error(dense, test)} top-1 error on {len(test)} test images")
    print("\n| parameters | cut | recalibrated | s | reconstructed | s |\n| ---: | ---: | ---: | ---: | ---: | ---: |")
    for ratio in given.ratio:
        print(_row(dense, ratio, data, test, given.calibration), flush=True)
    print(f"\npeak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def _row(dense: nn.Module, ratio: float, data: ImageData, test: Split, calibration: int) -> str:
    small = compress.prune_channels(dense, torch.zeros(1, *data.image_shape), ratio)
    plain = TrainingBatches(split=data.train, batches=calibration // _BATCH_SIZE, batch_size=_BATCH_SIZE, seed=0)
    augmented = replace(plain, augmented=True)
    recalibrated, recalibration_s = _timed(lambda: compress.recalibrate(small, augmented))
    reconstructed, reconstruction_s = _timed(lambda: compress.reconstruct(small, dense, plain))
    count = sum(parameter.numel() for parameter in small.parameters())
    cells = [
        f"{count / 1e6:.2f} M",
        _error(small, test),
        _error(recalibrated, test),
        f"{recalibration_s:.0f}",
        _error(reconstructed, test),
        f"{reconstruction_s:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _timed(work: Callable[[], nn.Module]) -> tuple[nn.Module, float]:
    start = time.perf_counter()
    model = work()
    return model, time.perf_counter() - start


def _chosen(data: ImageData, count: int) -> Split:
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))
    return data.test.subset(order[:count])


def _error(model: nn.Module, test: Split) -> str:
    return f"{compress.evaluate(model, test).top1_error:.2%}"


if __name__ == "__main__":
    main()
