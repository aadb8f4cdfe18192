"""Make PyTorch models smaller and faster, and prove what it cost.

Names are imported on first use: ``import compress`` alone is cheap and does not import torch, so that the pytest plugin
costs nothing in sessions that measure no model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compress import quality as quality
    from compress.artifacts.artifact import load as load
    from compress.artifacts.artifact import save as save
    from compress.data import ImageData as ImageData
    from compress.data import from_loaders as from_loaders
    from compress.data import from_tensors as from_tensors
    from compress.data import image_folder as image_folder
    from compress.data import load_data as load_data
    from compress.errors import CompressError as CompressError
    from compress.lowrank import LowRankConfig as LowRankConfig
    from compress.lowrank import factorize as factorize
    from compress.lowrank import plan_factorization as plan_factorization
    from compress.modules.masks import make_permanent_ as make_permanent_
    from compress.pruning.options import PruneOptions as PruneOptions
    from compress.pruning.recalibration import recalibrate as recalibrate
    from compress.pruning.reconstruct import reconstruct as reconstruct
    from compress.pruning.semi_structured import to_semi_structured_ as to_semi_structured_
    from compress.pruning.structured import plan_pruning as plan_pruning
    from compress.pruning.structured import prune_channels as prune_channels
    from compress.pruning.unstructured import prune_weights as prune_weights
    from compress.quantization.aware import QuantizeAwareConfig as QuantizeAwareConfig
    from compress.quantization.aware import quantize_aware_fit as quantize_aware_fit
    from compress.quantization.half import to_half as to_half
    from compress.quantization.static import quantize as quantize
    from compress.recipe import load_recipe as load_recipe
    from compress.recipe import run_recipe as run_recipe
    from compress.train import FitConfig as FitConfig
    from compress.train import evaluate as evaluate
    from compress.train.fit import fit as fit
    from compress.workload.workload import Workload as Workload
    from compress.workload.workload import dense_model as dense_model
    from compress.workload.workload import load_workload as load_workload

_HOME = {
    "CompressError": "compress.errors",
    "FitConfig": "compress.train",
    "ImageData": "compress.data",
    "LowRankConfig": "compress.lowrank",
    "PruneOptions": "compress.pruning.options",
    "QuantizeAwareConfig": "compress.quantization.aware",
    "Workload": "compress.workload.workload",
    "dense_model": "compress.workload.workload",
    "evaluate": "compress.train",
    "factorize": "compress.lowrank",
    "fit": "compress.train",
    "from_loaders": "compress.data",
    "from_tensors": "compress.data",
    "image_folder": "compress.data",
    "load": "compress.artifacts.artifact",
    "load_data": "compress.data",
    "load_recipe": "compress.recipe",
    "load_workload": "compress.workload.workload",
    "make_permanent_": "compress.modules.masks",
    "plan_factorization": "compress.lowrank",
    "plan_pruning": "compress.pruning.structured",
    "prune_channels": "compress.pruning.structured",
    "prune_weights": "compress.pruning.unstructured",
    "quantize": "compress.quantization.static",
    "quantize_aware_fit": "compress.quantization.aware",
    "recalibrate": "compress.pruning.recalibration",
    "reconstruct": "compress.pruning.reconstruct",
    "run_recipe": "compress.recipe",
    "save": "compress.artifacts.artifact",
    "to_half": "compress.quantization.half",
    "to_semi_structured_": "compress.pruning.semi_structured",
}

# What is a module of its own: ``compress.quality.miou``.
_ROOMS = ("quality",)

__all__ = [
    "CompressError",
    "FitConfig",
    "ImageData",
    "LowRankConfig",
    "PruneOptions",
    "QuantizeAwareConfig",
    "Workload",
    "dense_model",
    "evaluate",
    "factorize",
    "fit",
    "from_loaders",
    "from_tensors",
    "image_folder",
    "load",
    "load_data",
    "load_recipe",
    "load_workload",
    "make_permanent_",
    "plan_factorization",
    "plan_pruning",
    "prune_channels",
    "prune_weights",
    "quantize",
    "quantize_aware_fit",
    "recalibrate",
    "reconstruct",
    "run_recipe",
    "save",
    "to_half",
    "to_semi_structured_",
]


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return import_module(f"compress.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'compress' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
