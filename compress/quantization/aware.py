"""Fine-tuning with quantization in the loop, for models that lose too much to quantization after training.

Source: Jacob et al., CVPR 2018, section 3: the forward pass rounds as the int8 model will, the backward pass takes the
rounding for the identity; batch norms are folded with the statistics of the batch while they still learn (figure C.8).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import fx, nn

from compress import train
from compress.calling.fidelity import snr_db
from compress.calling.inputs import Inputs, infer, inputs_of
from compress.calling.outputs import Outputs
from compress.data import Data, ImageData
from compress.data.loaders import drawn
from compress.data.splits import stratified
from compress.exported import capture
from compress.exported.libraries import require_torchao
from compress.modules.copying import copied
from compress.modules.masks import make_permanent_
from compress.quality import Quality
from compress.quantization import checks
from compress.quantization.annotation import annotate_
from compress.quantization.canonical import canonical_
from compress.quantization.contract import Contract, against
from compress.quantization.folding import fold_batch_norms_
from compress.quantization.model import QuantizedModel, count_int8_kernels, layers_with_kernels, quantized_model
from compress.quantization.observed import converted, layers_of, operations_of, prepared, specifications
from compress.quantization.report import FLOAT, INT8, NOT_LOWERED, LayerReport, QuantizationReport, no_kernel
from compress.quantization.scaling import Scaled, fold_scaled_, scale_weights_
from compress.quantization.static import Quantized
from compress.system.cpu import has_vnni
from compress.train import FitConfig
from compress.train.config import Autocast
from compress.train.fit import MakeOptimizer
from compress.train.objective import Loss

_EXAMPLES = 32
_JUDGED = 1000  # training images that the report's accuracies are of
# Where the operations whose training form differs are told which one is wanted.
_TRAINING_ARGUMENT = {
    torch.ops.aten.batch_norm.default: 5,
    torch.ops.aten.dropout.default: 2,
    torch.ops.aten.dropout_.default: 2,
}


@dataclass(frozen=True, kw_only=True)
class QuantizeAwareConfig(FitConfig):
    """How :func:`quantize_aware_fit` trains: a short fine-tuning, see :class:`compress.FitConfig` for the rest.

    Raises:
        ConfigError: if a value breaks its rule.
    """

    epochs: int = 2
    learning_rate: float = 0.002
    warmup_epochs: float = 0.1
    # Rounding to 8 bits on top of bfloat16's own would hide what it does.
    autocast: Autocast = "off"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_untaught("fine-tune by one before, with fit")


_DEFAULT = QuantizeAwareConfig()


class _Rounded(nn.Module):
    """A graph that rounds while it learns; goes between its training and its eval form as a network would."""

    def __init__(self, graph: fx.GraphModule, scaled: tuple[Scaled, ...] = ()) -> None:
        super().__init__()
        self.graph = graph
        self.scaled = scaled

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.graph(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's own signature
        # torchao's own way to do this looks for whole patterns, takes seconds, and knows one momentum and epsilon.
        for node in self.graph.graph.nodes:
            if node.op == "call_function" and node.target in _TRAINING_ARGUMENT:
                node.update_arg(_TRAINING_ARGUMENT[node.target], mode)
        self.graph.recompile()
        self.training = mode
        return self


def quantize_aware_fit(
    model: nn.Module,
    data: Data,
    config: QuantizeAwareConfig = _DEFAULT,
    *,
    loss: Loss | None = None,
    optimizer: MakeOptimizer | None = None,
    outputs: Outputs | None = None,
    quality: Quality | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Quantized:
    """An int8 model of ``model``, fine-tuned on ``data.train`` so that it is used to its own rounding.

    ``model`` is left as it is. The report's accuracies are on training examples, for the test examples judge later: of
    labelled images how many are right, of other data how near the outputs come to the float model's, as in
    :func:`compress.quantize`.

    Args:
        model: trained, in float32 on the CPU; puts out logits ``[n, num_classes]``, or what ``loss`` takes.
        data: what it was trained on: labelled images, or batches as :func:`compress.data.from_loaders` takes them.
        config: how to fine-tune.
        loss, optimizer, outputs, quality: see :func:`compress.fit`.
        checkpoint: see :func:`compress.fit`.
        progress: whether to show how far the training is.

    Raises:
        ConfigError: if torchao is missing.
        ModelError: if the model cannot be exported or trained, is quantized already or not in float32.
        ArtifactError: if the checkpoint is of another run or damaged.
    """
    require_torchao()
    checks.check_device("cpu", model)
    checks.check_model(model)
    model = make_permanent_(copied(model))
    given = next(iter(data.train.batches(_EXAMPLES, training=True, seed=config.seed)))[0]
    examples = inputs_of(given, "a training batch")
    reduce_range = not has_vnni()
    rounded = _rounded(model, examples, reduce_range=reduce_range)
    trained = train.fit(
        rounded,
        data,
        config,
        loss=loss,
        optimizer=optimizer,
        outputs=outputs,
        quality=quality,
        checkpoint=checkpoint,
        progress=progress,
        device="cpu",
    ).model
    assert isinstance(trained, _Rounded)  # noqa: S101 - what was trained
    graph = _folded(trained)
    # Read before the graph is converted, which takes the observers out.
    layers = tuple(
        LayerReport(name=layer.name, precision=INT8)
        if layer.observers
        else LayerReport(name=layer.name, precision=FLOAT, reason=no_kernel(layer.operation))
        for layer in layers_of(graph)
    )
    quantized = quantized_model(converted(graph), examples)
    layers, kernels = _lowered(layers, quantized, examples)
    accuracy, measure = _contract(model, data, config, outputs)
    report = QuantizationReport(
        layers=layers,
        int8_kernels=kernels,
        accuracy_float=accuracy(model),
        accuracy_int8=accuracy(quantized),
        accuracy_measure=measure,
        output_snr_db=snr_db(infer(model, examples), infer(quantized, examples)),
        reduce_range=reduce_range,
    )
    quantized.notes["report"] = report.to_json()
    return Quantized(quantized, report)


def _lowered(
    layers: tuple[LayerReport, ...], quantized: QuantizedModel, examples: Inputs
) -> tuple[tuple[LayerReport, ...], int]:
    """The layers, of which one that has no int8 kernel is none in int8, and how many kernels run."""
    kernels = count_int8_kernels(quantized, examples)
    if kernels >= sum(layer.precision == INT8 for layer in layers):
        return layers, kernels
    has_kernel = iter(layers_with_kernels(quantized, examples))
    return tuple(
        layer
        if layer.precision == FLOAT or next(has_kernel)
        else LayerReport(name=layer.name, precision=FLOAT, reason=NOT_LOWERED)
        for layer in layers
    ), kernels


def _contract(model: nn.Module, data: Data, config: QuantizeAwareConfig, outputs: Outputs | None) -> Contract:
    """What the report's accuracies are, on training examples."""
    if not isinstance(data, ImageData):
        return against(
            model, [inputs_of(inputs) for inputs, _ in drawn(data.train, _JUDGED, config.seed).batches(_EXAMPLES)]
        )
    _, chosen = stratified(data.train.labels, min(len(data.train), _JUDGED), config.seed)
    judged = data.train.subset(chosen)

    def accuracy(candidate: nn.Module) -> float:
        return 1 - train.evaluate(candidate, judged, outputs=outputs).top1_error

    return Contract(accuracy, "accuracy on training images")


def _without_counters(graph: fx.GraphModule) -> fx.GraphModule:
    """The graph without what counts the batches that a norm has seen; it would count on in the finished model."""
    for node in list(graph.graph.nodes):
        first = node.args[0] if node.args else None
        counted = isinstance(first, fx.Node) and str(first.target).endswith("num_batches_tracked")
        if node.op == "call_function" and node.target is torch.ops.aten.add_.Tensor and counted:
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _rounded(model: nn.Module, examples: Inputs, *, reduce_range: bool) -> _Rounded:
    """``model`` as a graph in its training form, with fake quantization whose ranges fit ``examples``."""
    graph = _without_counters(operations_of(capture(model.train(), examples)))
    canonical_(graph, training=True)
    scaled = scale_weights_(graph)
    nodes = {node.name: node for node in graph.graph.nodes}
    ends = {nodes[one.layer]: nodes[one.norm] for one in scaled}
    annotate_(graph, specifications(reduce_range=reduce_range, training=True), ends=ends)
    rounded = _Rounded(prepared(graph, training=True), scaled)
    # The ranges of weights get their shape from the first forward pass; statistics of norms are not to move with it.
    rounded.train(mode=False)
    with torch.no_grad():
        examples.call(rounded)
    return rounded.train()


def _folded(rounded: _Rounded) -> fx.GraphModule:
    """The trained graph in its eval form, without batch norms."""
    graph = rounded.train(mode=False).get_submodule("graph")
    assert isinstance(graph, fx.GraphModule)  # noqa: S101 - for the type checker
    fold_scaled_(graph, rounded.scaled)
    fold_batch_norms_(graph)
    return graph
