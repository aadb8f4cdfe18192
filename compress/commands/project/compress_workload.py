"""What is compressed and on what it is judged: the two functions marked BLANK are yours to fill.

As it stands this file trains a small network on scikit-learn's handwritten digits, so that everything runs before you
change a line of it.
"""

import compress
import torch
from torch import nn


def build_model() -> nn.Module:
    """BLANK 1: your network, with its trained weights; then delete ``fit=`` below."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def load_data() -> compress.ImageData:
    """BLANK 2: your images, e.g. ``compress.image_folder("data")`` or ``compress.from_tensors(...)``."""
    return compress.load_data("digits")


def workload() -> compress.Workload:
    """What ``compress_workload`` in the ini file names."""
    return compress.Workload(
        name="PROJECT",
        model_factory=build_model,
        data=load_data,
        example_input=torch.zeros(1, 3, 16, 16),  # one input, as the model is served it
        fit=compress.FitConfig(epochs=6, batch_size=32, learning_rate=0.05, validation_fraction=0.0),
    )
