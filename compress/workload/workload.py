"""What is compressed, and on what it is judged: a model, its data, example inputs and qualities."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import nn

from compress import data, quality, train
from compress.artifacts import artifact
from compress.artifacts.cache import cache_path, cached_model
from compress.calling.inputs import Inputs, device_of, infer, inputs_of
from compress.calling.outputs import Outputs, named_tensors, selected
from compress.data import Data, ImageData, LoaderData, LoaderSplit, Split, from_loaders
from compress.errors import ArtifactError, CompressError, ConfigError, DataError
from compress.models import googlenet
from compress.models.googlenet import WEIGHTS
from compress.modules.described import described
from compress.quality import Judged, OwnMetric, Quality, judge_model, output_error, topk_error
from compress.quality.evaluation import Groups
from compress.quality.quality import Rows, check_distinct, qualities_of
from compress.results import METRICS, Metric, in_order
from compress.train import FitConfig
from compress.train.fit import MakeOptimizer
from compress.train.objective import Loss
from compress.workload import EMBEDDED

EVALUATED_AT_ONCE = 256
# The package's metrics that are not told of every task.
_OF_IMAGES = ("top1_error", "top5_error")


class Training(TypedDict):
    """What a training takes of a workload, as keyword arguments of :func:`compress.fit`."""

    loss: Loss | None
    distance: Loss | None
    optimizer: MakeOptimizer | None
    outputs: Outputs | None
    quality: Quality | None


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model, its data, example inputs and what it is judged by.

    Attributes:
        name: names the baseline and the files in the cache.
        model_factory: builds the dense network; a function that a fresh process can import by its name.
        model_args: keyword arguments of ``model_factory``, of types that JSON knows.
        data: loads the data set; called once, when it is first needed. Labelled images
            (:class:`compress.data.ImageData`), or of any other task what :func:`compress.data.from_loaders` takes: a
            pair (train, test) of iterables of batches: (inputs, targets), or inputs alone.
        example_inputs: one input as the model is served it, of any structure: a tensor ``[1, ...]``, a tuple of
            arguments or a mapping of named ones; latency and memory are measured on it.
        example_input: the same, of a model that takes one tensor.
        quality: what it is judged by on the test examples: one or several of :mod:`compress.quality`, or plain
            functions ``(outputs, targets) -> [n]``. If left out, top-1 and top-5 error of labelled images, and of
            other data how near outputs come to the dense model's, which takes no targets.
        metrics: what else is measured of it.
        groups: a batch's targets to which examples belong together, as those of one recording do; each is on its own
            if left out.
        outputs: which of what the model puts out counts, its logits: ``lambda out: out.logits``; all of it if left
            out. Recipes prune, factorize, train and judge by it.
        loss: what training makes smaller, ``(outputs, targets) -> number``; the cross-entropy of logits with integer
            labels if left out.
        distance: of what a model and its teacher put out, where that is not the default of :func:`compress.fit`.
        optimizer: makes the optimizer of a training, see :func:`compress.fit`.
        weights: the trained dense model, as :func:`compress.save` wrote it.
        fit: how to train the dense model, where neither ``weights`` nor a keyword argument of that name in
            ``model_args`` brings it trained. With none of the three, ``model_factory`` is taken to return a trained
            model.

    Raises:
        ConfigError: if ``model_factory`` is neither a function nor a class.
    """

    name: str
    model_factory: Callable[..., nn.Module]
    data: Callable[[], Any]
    example_inputs: Any = None
    example_input: Any = None
    quality: Quality | Rows | Sequence[Quality | Rows] = ()
    metrics: Sequence[OwnMetric] = ()
    groups: Groups | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    outputs: Outputs | None = None
    loss: Loss | None = None
    distance: Loss | None = None
    optimizer: MakeOptimizer | None = None
    weights: str | Path | None = None
    fit: FitConfig | None = None

    def __post_init__(self) -> None:
        factory = self.model_factory
        # Its name and its source file are part of what a cached model is found again by.
        if not (inspect.isfunction(factory) or inspect.ismethod(factory) or inspect.isclass(factory)):
            raise ConfigError(f"model_factory must be a function or a class, got {factory!r} (workload {self.name!r})")
        if (self.example_inputs is None) is (self.example_input is None):
            raise ConfigError(f"a workload must be given example_inputs, or example_input (workload {self.name!r})")
        if not self.inputs.tensors:
            raise ConfigError(f"example_inputs must hold a tensor (workload {self.name!r})")
        declared = qualities_of(self.quality)
        check_distinct([*(one.name for one in declared), *(one.name for one in self.metrics)])

    @property
    def code(self) -> tuple[Callable[..., Any], ...]:
        """The functions and classes of it that a result depends on."""
        used = (self.outputs, self.loss, self.distance, self.optimizer, *(one.rows for one in self.qualities))
        return (self.model_factory, *(_code_of(one) for one in used if one is not None))

    @property
    def is_trained(self) -> bool:
        """Whether it brings weights, so that nothing needs to be trained."""
        return self.weights is not None or self.model_args.get("weights") is not None

    def build(self) -> nn.Module:
        """The dense network, fresh from its factory."""
        return self.model_factory(**self.model_args)

    @property
    def training(self) -> Training:
        """What :func:`compress.fit` is to know of it."""
        return {
            "loss": self.loss,
            "distance": self.distance,
            "optimizer": self.optimizer,
            "outputs": self.outputs,
            "quality": self.own_quality,
        }

    @cached_property
    def inputs(self) -> Inputs:
        """The example inputs as arguments."""
        return inputs_of(self.example_input if self.example_inputs is None else self.example_inputs)

    @cached_property
    def dataset(self) -> Data:
        """The data set, loaded on first use.

        Raises:
            DataError: if ``data`` gives none.
        """
        found = self.data()
        if isinstance(found, (ImageData, LoaderData)):
            return found
        if isinstance(found, (tuple, list)) and len(found) == 2:  # noqa: PLR2004 - train and test
            return from_loaders(self.name, train=found[0], test=found[1])
        raise DataError(
            "data must give a data set, or a pair (train, test) of iterables of batches (inputs, targets), got"
            f" {type(found).__name__} (workload {self.name!r})"
        )

    @cached_property
    def qualities(self) -> tuple[Quality, ...]:
        """What it is judged by."""
        declared = qualities_of(self.quality)
        if declared:
            return declared
        if not isinstance(self.dataset, ImageData):
            return (output_error(),)
        num_classes = len(self.dataset.classes)
        return topk_error(1, num_classes), topk_error(5, num_classes)

    @property
    def own_quality(self) -> Quality | None:
        """The first of them that a model has by itself, and not by its nearness to the dense one; None without any."""
        return next((one for one in self.qualities if one.against == "targets"), None)

    @cached_property
    def known_metrics(self) -> dict[str, Metric]:
        """All that can be measured of it, by name, in the order of rows in a report."""
        of_any = [metric for metric in METRICS.values() if metric.name not in _OF_IMAGES]
        own = [*(one.metric for one in self.qualities), *(one.metric for one in self.metrics)]
        return {metric.name: metric for metric in in_order([*of_any, *own])}

    def judge(self, model: nn.Module, *, dense: nn.Module | None = None, progress: bool = False) -> dict[str, Judged]:
        """All qualities of a model on the test examples, by name.

        Args:
            model: to be judged.
            dense: what it came from, where a quality is held against that; may be ``model`` itself.
            progress: whether to show a bar, if stderr is a terminal.

        Raises:
            CompressError: if the model or a quality fails on them.
        """
        return judge_on(self, model, self.dataset.test, self.qualities, dense=dense, progress=progress)


def judge_on(
    workload: Workload,
    model: nn.Module,
    split: Split | LoaderSplit,
    qualities: Sequence[Quality],
    *,
    dense: nn.Module | None = None,
    progress: bool = False,
) -> dict[str, Judged]:
    """Some qualities of a model on some examples of a workload, by name."""
    return judge_model(
        model,
        split.batches(EVALUATED_AT_ONCE),
        qualities,
        reference=dense,
        outputs=workload.outputs,
        groups=workload.groups,
        total=split.num_batches if isinstance(split, LoaderSplit) else math.ceil(len(split) / EVALUATED_AT_ONCE),
        progress=progress,
    )


# What benchmarks/training/digits.toml says too: how the weights that come with the package were trained.
DIGITS_FIT = FitConfig(epochs=12, batch_size=32, learning_rate=0.02, validation_fraction=0.0)


def load_workload(spec: str) -> Workload:
    """The workload that ``spec`` names.

    Args:
        spec: ``digits``, ``cifar10``, ``cifar100``, ``imagefolder:DIR`` (GoogLeNet on the images under DIR), one of
            :data:`compress.workload.EMBEDDED`, or ``module:function`` for a function without arguments that returns a
            :class:`Workload`.

    Raises:
        ConfigError: if ``spec`` names nothing, or the function fails or returns something else.
        DataError: if the data cannot be loaded.
    """
    module_name, _, function_name = EMBEDDED.get(spec, spec).partition(":")
    if not function_name or module_name == "imagefolder":
        return _on_googlenet(data.load_data(spec), spec)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    # An empty name is a ValueError to importlib, a relative one a TypeError.
    except (ImportError, AttributeError, TypeError, ValueError) as cause:
        raise ConfigError(f"workload {spec!r} cannot be imported: {cause}") from cause
    if not callable(function):
        raise ConfigError(
            f"workload {spec!r} must be a function that returns a compress.Workload, got {type(function).__name__}"
        )
    try:
        workload = function()
    except CompressError:
        raise
    except Exception as cause:
        raise ConfigError(f"workload {spec!r} failed: {type(cause).__name__}: {cause}") from cause
    if not isinstance(workload, Workload):
        raise ConfigError(f"workload {spec!r} must return a compress.Workload, got {type(workload).__name__}")
    return workload


def dense_model(workload: Workload, *, progress: bool = True) -> nn.Module:
    """The trained dense model of ``workload``, in eval mode.

    Where the workload brings no weights the model is trained, once, and kept in the user's cache directory under a hash
    of all that determines it. An interrupted training goes on where it stopped.

    Raises:
        ArtifactError: if ``workload.weights`` do not fit the network its factory builds.
    """
    if workload.weights is not None:
        return artifact.load(workload.weights, workload.build).eval()
    config = workload.fit
    if config is None or workload.is_trained:
        return workload.build().eval()
    path = cache_path(f"dense-{workload.name}", ingredients(workload), (data, quality, train, *workload.code))

    def trained() -> nn.Module:
        model = initial_model(workload, config.seed)
        checkpoint = path.with_suffix(".checkpoint")
        return train.fit(
            model, workload.dataset, config, checkpoint=checkpoint, progress=progress, **workload.training
        ).model

    return cached_model(path, workload.build, trained).eval()


def compressed_model(path: str | Path, dense: nn.Module, workload: Workload) -> nn.Module:
    """The compressed model in a file, whatever made it, in eval mode; it must run in the place of ``dense``.

    Args:
        path: of a file that :func:`compress.artifacts.artifact.load` reads.
        dense: the dense model of ``workload``.
        workload: whose factory and example inputs the file must fit.

    Raises:
        ArtifactError: if the file is missing, damaged or of another network, does not run on the example inputs, or
            puts out tensors of other shapes than ``dense`` does.
        ConfigError: if a package that it needs is not installed.
    """
    model = artifact.load(path, workload.build).eval()
    shapes = []
    for one in (dense, model):
        inputs = workload.inputs.to(device_of(one))
        try:
            output = selected(infer(one, inputs, f"the example inputs of workload {workload.name!r}"), workload.outputs)
        except CompressError as cause:
            raise ArtifactError(f"{cause} ({path if one is model else 'the dense model'})") from cause
        shapes.append([list(tensor.shape) for _, tensor in named_tensors(output, within_objects=False)])
    if shapes[0] != shapes[1]:
        raise ArtifactError(
            f"a model must put out tensors of shapes {shapes[0]}, as the dense one of workload {workload.name!r}, got"
            f" {shapes[1]} ({path})"
        )
    return model


def untrained(workload: Workload) -> Workload:
    """The same without the weights that it brings, so that its dense model is trained as ``fit`` says.

    Raises:
        ConfigError: if the workload has no ``fit``.
    """
    if workload.fit is None:
        raise ConfigError(f"a dense model is trained as its workload's fit= says, which {workload.name!r} lacks")
    return replace(workload, weights=None, model_args=_without_weights(workload))


def initial_model(workload: Workload, seed: int) -> nn.Module:
    """The dense network as its factory builds it, random weights drawn with ``seed``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return workload.model_factory(**_without_weights(workload))


def ingredients(workload: Workload) -> dict[str, Any]:
    """What the trained dense model depends on, beside code."""
    return {
        "data": [workload.dataset.sha256, workload.dataset.train_sha256],
        "fit": None if workload.fit is None else asdict(workload.fit),
        "model": workload.model_factory.__qualname__,
        "training": described(workload.training),
        "model_args": dict(workload.model_args),
    }


def _on_googlenet(dataset: ImageData, spec: str) -> Workload:
    """The reference network on any set of small images, trained where this package has weights for them."""
    model_args: dict[str, Any] = {"num_classes": len(dataset.classes)}
    if spec in WEIGHTS:
        model_args["weights"] = spec
    return Workload(
        name=dataset.name,
        model_factory=googlenet,
        model_args=model_args,
        data=lambda: dataset,
        example_input=torch.randn(1, *dataset.image_shape, generator=torch.Generator().manual_seed(0)),
        fit=DIGITS_FIT if spec == "digits" else FitConfig(),
    )


def _code_of(used: Callable[..., Any]) -> Callable[..., Any]:
    """The function or class whose source says what ``used`` does."""
    if isinstance(used, partial):
        return _code_of(used.func)
    return used if inspect.isroutine(used) or inspect.isclass(used) else type(used)


def _without_weights(workload: Workload) -> dict[str, Any]:
    # In torchvision's networks too the argument of that name is what brings trained ones.
    return {name: value for name, value in workload.model_args.items() if name != "weights"}
