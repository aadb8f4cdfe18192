"""Qualities of sounds and pictures that a model puts out."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from compress.quality.libraries import torchmetrics
from compress.quality.quality import Quality
from compress.quality.tensors import pair_of_numbers


def snr() -> Quality:
    """Signal-to-noise ratio in dB, the mean over examples: outputs and targets ``[n, ..., samples]``."""

    def rows(outputs: Any, targets: Any) -> Tensor:
        ratios: Tensor = torchmetrics("audio").signal_noise_ratio(*pair_of_numbers(outputs, targets))
        return ratios.reshape(len(ratios), -1).mean(1)

    return Quality(name="snr_db", rows=rows, better="higher", title="signal to noise, dB")


def psnr(data_range: float = 1.0) -> Quality:
    """Peak signal-to-noise ratio in dB, the mean over examples: outputs and targets ``[n, ...]``."""

    def rows(outputs: Any, targets: Any) -> Tensor:
        got, expected = pair_of_numbers(outputs, targets)
        ratios: Tensor = torchmetrics("image").peak_signal_noise_ratio(
            got, expected, data_range=data_range, reduction="none", dim=tuple(range(1, got.ndim))
        )
        return ratios

    return Quality(name="psnr_db", rows=rows, better="higher", title="peak signal to noise, dB")


def ssim(data_range: float = 1.0) -> Quality:
    """Structural similarity, the mean over examples: pictures ``[n, channels, h, w]``."""

    def rows(outputs: Any, targets: Any) -> Tensor:
        got, expected = pair_of_numbers(outputs, targets)
        similarities: Tensor = torchmetrics("image").structural_similarity_index_measure(
            got, expected, data_range=data_range, reduction="none"
        )
        return similarities.reshape(len(got))

    return Quality(name="ssim", rows=rows, better="higher", title="SSIM")
