"""Which torchvision classifiers become int8: writes docs/int8.md.

    python benchmarks/int8_coverage.py [MODEL ...]

Random weights, norms with the statistics of random inputs: it is about graphs and kernels, not about accuracy. Rows of
models that are not named stay as they are in the file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torchvision
from torch import nn

from compress.calling.fidelity import snr_db
from compress.calling.inputs import inputs_of
from compress.errors import ArtifactError, CompressError
from compress.exported import capture
from compress.exported.libraries import require_torchao
from compress.quantization.model import count_int8_kernels, quantized_model
from compress.quantization.observed import calibrate_, converted, layers_of, observed
from compress.system.cpu import has_vnni
from compress.system.files import write_atomically

MODELS = (
    "resnet18",
    "resnet50",
    "googlenet",
    "inception_v3",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "densenet121",
    "efficientnet_b0",
    "shufflenet_v2_x1_0",
    "regnet_y_400mf",
    "vit_b_16",
    "swin_t",
)
BATCHES = (1, 3, 16)
PAGE = Path(__file__).parents[1] / "docs" / "int8.md"
HEAD = """# Static int8 over torchvision

Written by `python benchmarks/int8_coverage.py`: PT2E with the quantizer for x86, random weights, four random images
that set the statistics of batch norms and calibrate. A last layer that starts at zero, as a ViT's does, gets random
weights too, or there would be no outputs to compare. *Layers* are the convolutions and linears that are int8, of all
there are; *kernels* the int8 convolutions and matrix products that the profiler counts in one compiled forward pass of
1, 3 and 16 images; *SNR* the power of the outputs of the model that was given over that of the difference, in dB, for
as many images.

| model | layers in int8 | int8 kernels | SNR dB | |
| --- | ---: | ---: | ---: | --- |
"""


def main() -> None:
    """Quantize every model, one row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)} (default: all)")
    chosen = parser.parse_args().models or MODELS
    require_torchao()
    rows = {line.split("|")[1].strip(): line for line in _lines() if line.startswith("| ")}
    for name in chosen:
        rows[name] = row(name)
        print(rows[name], flush=True)
        PAGE.parent.mkdir(exist_ok=True)
        known = [rows[model] for model in MODELS if model in rows]
        write_atomically(PAGE, (HEAD + "\n".join(known) + "\n").encode(), ArtifactError)


def row(name: str) -> str:
    """The model's line of the table."""
    torch.manual_seed(0)
    settings = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    model = getattr(torchvision.models, name)(weights=None, **settings, **_quick_init(name)).eval()
    _fill_head_(model)
    side = 299 if name == "inception_v3" else 224
    images = torch.randn(4, 3, side, side)
    _set_statistics_(model, images)
    try:
        cells = _quantize(model, images)
    except CompressError as cause:
        cells = f"- | - | - | {str(cause).replace('|', '/')}"
    return f"| {name} | {cells} |"


def _quantize(model: nn.Module, images: torch.Tensor) -> str:
    graph = observed(capture(model, images), observer="minmax", reduce_range=not has_vnni())
    calibrate_(graph, [inputs_of(images)], progress=False)
    layers = layers_of(graph)
    in_int8 = [layer for layer in layers if layer.observers]
    quantized = quantized_model(converted(graph), images)
    kernels, decibels = [], []
    for count in BATCHES:
        batch = images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
        kernels.append(str(count_int8_kernels(quantized, batch)))
        with torch.inference_mode():
            decibels.append(f"{snr_db(model(batch), quantized(batch)):.1f}")
    kept = sorted({layer.operation for layer in layers if not layer.observers})
    reason = f"no int8 kernel for {', '.join(kept)}" if kept else ""
    return f"{len(in_int8)} of {len(layers)} | {', '.join(kernels)} | {', '.join(decibels)} | {reason}"


def _fill_head_(model: nn.Module) -> None:
    """Give a last linear layer of zeros random weights: its outputs would be zero in float and in int8 alike."""
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    if not head.weight.any():
        nn.init.trunc_normal_(head.weight, std=0.02)


def _set_statistics_(model: nn.Module, images: torch.Tensor) -> None:
    """Let batch norms normalize, as trained ones do: with their first statistics a deep network puts out nothing."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(images)
    model.eval()


def _quick_init(name: str) -> dict[str, bool]:
    """Scipy's truncated normal takes minutes, for weights that are random either way."""
    return {"init_weights": False} if name in ("googlenet", "inception_v3") else {}


def _lines() -> list[str]:
    return PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []


if __name__ == "__main__":
    main()
