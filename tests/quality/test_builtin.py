"""What comes built in, held against torchmetrics' own figures of all examples at once, or against closed forms."""

from __future__ import annotations

import pytest
import torch

from compress import quality
from compress.errors import ConfigError, ModelError
from compress.quality.evaluation import judge_model

torchmetrics = pytest.importorskip("torchmetrics")
F = torchmetrics.functional


def value(one, outputs, targets, *, batch=7):
    """The figure of a model that puts out ``outputs``, judged batch by batch."""
    places = torch.arange(len(outputs))

    def model_of(index):
        return [outputs[i] for i in index.tolist()] if isinstance(outputs, list) else outputs[index]

    model = torch.nn.Module()
    model.forward = model_of
    batches = [
        (part, [targets[i] for i in part.tolist()] if isinstance(targets, list) else targets[part])
        for part in places.split(batch)
    ]
    return judge_model(model, batches, [one])[one.name].value


@pytest.fixture
def generator():
    """Random numbers that are the same every time."""
    return torch.Generator().manual_seed(0)


def test_classification(generator):
    """Top-k error, area under ROC and F1."""
    logits, labels = torch.randn(40, 5, generator=generator), torch.randint(0, 5, (40,), generator=generator)
    accuracy = F.accuracy(logits, labels, task="multiclass", num_classes=5, top_k=2, average="micro")
    assert value(quality.topk_error(2), logits, labels) == pytest.approx(1 - float(accuracy))
    f1 = F.f1_score(logits, labels, task="multiclass", num_classes=5, average="macro")
    assert value(quality.f1(5), logits, labels) == pytest.approx(float(f1))
    scores, positive = torch.randint(0, 9, (60,), generator=generator) / 9, torch.arange(60) % 3 == 0
    area = F.auroc(scores, positive.long(), task="binary")
    assert value(quality.auroc(), scores, positive.long()) == pytest.approx(float(area))


def test_segmentation(generator):
    """Mean IoU and Dice of counts over all pictures; what is to be ignored is."""
    logits = torch.randn(10, 4, 6, 6, generator=generator)
    labels = torch.randint(0, 4, (10, 6, 6), generator=generator)
    iou = F.jaccard_index(logits, labels, task="multiclass", num_classes=4, average="macro")
    assert value(quality.miou(4), logits, labels) == pytest.approx(float(iou))
    dice = F.f1_score(logits, labels, task="multiclass", num_classes=4, average="macro")
    assert value(quality.dice(4), logits, labels) == pytest.approx(float(dice))
    labels[:, 0] = 255
    iou = F.jaccard_index(logits, labels, task="multiclass", num_classes=4, average="macro", ignore_index=255)
    assert value(quality.miou(4, ignore_index=255), logits, labels) == pytest.approx(float(iou))


def test_regression(generator):
    """Absolute and squared errors, the coefficient of determination, cosines."""
    outputs, targets = torch.randn(30, generator=generator), torch.randn(30, generator=generator)
    assert value(quality.mae(), outputs, targets) == pytest.approx(float(F.mean_absolute_error(outputs, targets)))
    squared = float(F.mean_squared_error(outputs, targets, squared=False))
    assert value(quality.rmse(), outputs, targets) == pytest.approx(squared)
    assert value(quality.r2(), outputs[:, None], targets) == pytest.approx(float(F.r2_score(outputs, targets)))
    far = 1.7e9 + targets.double()
    near = 1 - float(
        (outputs - targets).double().square().sum() / (targets.double() - targets.double().mean()).square().sum()
    )
    assert value(quality.r2(), far + (outputs - targets).double(), far) == pytest.approx(near, rel=1e-6)
    wide, other = torch.randn(30, 8, generator=generator), torch.randn(30, 8, generator=generator)
    cosine = float(F.cosine_similarity(wide, other, reduction="mean"))
    assert value(quality.cosine_similarity(), wide, other) == pytest.approx(cosine)


def test_signals(generator):
    """Ratios in dB and structural similarity, the mean over examples."""
    clean = torch.rand(6, 1, 24, 24, generator=generator)
    noisy = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    assert value(quality.snr(), noisy, clean) == pytest.approx(
        float(F.audio.signal_noise_ratio(noisy, clean).mean()), rel=1e-4
    )
    peak = F.image.peak_signal_noise_ratio(noisy, clean, data_range=1.0, reduction="elementwise_mean", dim=(1, 2, 3))
    assert value(quality.psnr(), noisy, clean) == pytest.approx(float(peak), rel=1e-4)
    similar = F.image.structural_similarity_index_measure(noisy, clean, data_range=1.0)
    assert value(quality.ssim(), noisy, clean) == pytest.approx(float(similar), rel=1e-4)


def test_text(generator):
    """Perplexity over tokens, not over texts; rates over all words and characters."""
    logits, tokens = torch.randn(9, 5, 11, generator=generator), torch.randint(0, 11, (9, 5), generator=generator)
    tokens[2:4, 3:] = -100
    expected = float(F.text.perplexity(logits, tokens, ignore_index=-100))
    assert value(quality.perplexity(), logits, tokens) == pytest.approx(expected, rel=1e-4)
    said, written = ["a cat sat", "hello", "one two three four"], ["the cat sat down", "hallo", "one three four"]
    words = float(F.text.word_error_rate(said, written))
    assert value(quality.wer(list), said, written) == pytest.approx(words)
    assert value(quality.wer(list), ["two words", "a b"], ["", "a b c d"]) == pytest.approx((2 + 2) / 4)
    letters = float(F.text.char_error_rate(said, written))
    assert value(quality.cer(list), said, written) == pytest.approx(letters)


def boxes(*corners):
    """Corners as a detector gives them."""
    return torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)


def test_detection_in_closed_form():
    """One object found, one missed, one found twice: the second finding of it is wrong."""
    there = [
        {"boxes": boxes((0, 0, 10, 10), (20, 20, 30, 30)), "labels": torch.tensor([0, 0])},
        {"boxes": boxes((5, 5, 15, 15)), "labels": torch.tensor([1])},
    ]
    found = [
        {"boxes": boxes((0, 0, 10, 9)), "labels": torch.tensor([0]), "scores": torch.tensor([0.9])},
        {
            "boxes": boxes((5, 5, 15, 14), (5, 5, 15, 15)),
            "labels": torch.tensor([1, 1]),
            "scores": torch.tensor([0.8, 0.7]),
        },
    ]
    precise = quality.mean_average_precision(2)
    assert precise.name == "map50"
    assert value(precise, found, there) == pytest.approx((0.5 + 1.0) / 2)
    swapped = [found[0], {**found[1], "labels": torch.tensor([0, 0])}]
    assert value(precise, swapped, there) == pytest.approx((0.5 + 0.0) / 2)
    coded = [{"code": {key: one + 1 for key, one in image.items()}} for image in found]
    decoded = quality.mean_average_precision(
        2, detections=lambda outputs: [{key: one - 1 for key, one in image["code"].items()} for image in outputs]
    )
    assert value(decoded, coded, there) == pytest.approx((0.5 + 1.0) / 2)


def test_outputs_of_another_shape_are_refused():
    """In a sentence that says which shape it should have been."""
    with pytest.raises(ModelError, match=r"logits of shape \[7, num_classes\], this one put out \[7, 2, 2\]"):
        value(quality.topk_error(1), torch.zeros(7, 2, 2), torch.zeros(7, dtype=torch.int64))
    with pytest.raises(ModelError, match=r"numbers of the targets' shape \[7, 2\], this one put out \[7, 3\]"):
        value(quality.mae(), torch.zeros(7, 3), torch.zeros(7, 2))
    with pytest.raises(ConfigError, match="labels must be in"):
        value(quality.topk_error(1), torch.zeros(7, 2), torch.full((7,), 2))
