"""VGG-19 on CIFAR-100, the second network of DepGraph's benchmark.

``python benchmarks/peers.py --workload benchmarks.vgg:cifar100 --times-fewer-macs 2.1 8.9`` trains it where the cache
does not hold it yet, and cuts it by several tools.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress import Workload, data
from compress.train import FitConfig

# Channels between two poolings.
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512))


class Vgg(nn.Module):
    """Convolutions 3x3 with batch norms, a pooling after each block but the last, and one linear layer.

    Source: Simonyan and Zisserman, ICLR 2015, table 1, E, in its form for small images, which Fang et al., "DepGraph",
    CVPR 2023, section 4.2, cut.
    """

    def __init__(self, num_classes: int = 100) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        ins = 3
        for number, block in enumerate(_BLOCKS):
            if number:
                layers.append(nn.MaxPool2d(2))
            for outs in block:
                layers += [nn.Conv2d(ins, outs, 3, padding=1, bias=False), nn.BatchNorm2d(outs), nn.ReLU()]
                ins = outs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(ins, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """``[n, 3, h, w] -> [n, num_classes]``, height and width at least 16."""
        logits: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return logits


def cifar100() -> Workload:
    """Trained from nothing, in hours on two cores; most of its epochs on small images."""
    return Workload(
        name="vgg19-cifar100",
        model_factory=Vgg,
        data=data.cifar100,
        example_input=torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
        fit=FitConfig(
            epochs=32,
            learning_rate=0.1,
            warmup_epochs=2,
            validation_fraction=0.0,
            image_sizes=(16, 16, 16, 20, 20, 24, 24, 32),
        ),
    )
