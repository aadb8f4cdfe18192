"""What is done to one network, and what is then true of it; runs in a process of the network's own."""

from __future__ import annotations

import copy
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

import compress
from benchmarks.coverage_models import subject
from benchmarks.masked import masked_dense
from benchmarks.subjects import Arguments, Subject
from compress.calling.inputs import infer, inputs_of, tensors_in
from compress.calling.outputs import selected
from compress.errors import first_line
from compress.pruning.structured import apply_plan, plan_pruning

Row = dict[str, Any]

RATIO = 0.2
# How far outputs in float32 may be from what they should be, relative to the largest of them.
TOLERANCE = 1e-5
RANK_RATIO = 0.25
_TOKENS = 8


def check(tool: str, family: str, name: str, threads: int) -> Row:
    """Build a network, have ``tool`` work on it, and say what came of it."""
    torch.set_num_threads(threads)
    one = subject(family, name)
    before = sum(parameter.numel() for parameter in one.model.parameters())
    return {"parameters": before, **TOOLS[tool](one, lambda: subject(family, name).model)}


Factory = Callable[[], nn.Module]


def _prunes(one: Subject, factory: Factory) -> Row:
    _prunes_tiny(_by_compress)
    started = time.process_time()
    plan = plan_pruning(one.model, one.example, RATIO, options=compress.PruneOptions(outputs=one.outputs))
    smaller = apply_plan(one.model, plan)
    row = {"seconds": time.process_time() - started, **_left(smaller)}
    reasons = Counter(_short(group.frozen) for group in plan.groups if group.frozen)
    groups = Counter("frozen" if g.frozen else "pruned" if g.kept < g.channels else "kept" for g in plan.groups)
    row |= {"frozen": dict(reasons), "groups": dict(groups), "repairs": sorted({r.attribute for r in plan.repairs})}
    masked = masked_dense(one.model, plan)
    row |= {"equal": _equal(one, smaller, masked, one.example)}
    row |= {what: _equal(one, smaller, masked, inputs) for what, inputs in one.others.items()}
    del masked
    row |= {"trains": _trains(smaller, one), "loads": _loads(smaller, one, factory)}
    return row


def _prunes_tiny(prune: Callable[[Subject], object]) -> None:
    """Spend what only a first time takes, so that it is no part of what is timed."""
    tiny = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    prune(Subject(model=tiny, example=(torch.zeros(1, 3, 8, 8),), others={}))


def _by_compress(one: Subject) -> nn.Module:
    return apply_plan(one.model, plan_pruning(one.model, one.example, RATIO))


def _left(model: nn.Module) -> Row:
    return {"left": sum(parameter.numel() for parameter in model.parameters())}


def _short(reason: str) -> str:
    """A reason without the layer, which differs from network to network."""
    return re.sub(r"(, layer|\(layer) '[^']*'\)?", "", reason).replace("(aten.", "(").rstrip(" )") + (
        ")" if "(aten." in reason else ""
    )


def _equal(one: Subject, smaller: nn.Module, masked: nn.Module, inputs: Arguments) -> bool | str:
    """Whether a pruned network puts out what the masked one does; "fixed" where the dense one does not run."""
    try:
        infer(one.model, inputs_of(inputs))
    except compress.CompressError:
        return "fixed"
    try:
        difference = _difference(_outputs(one, smaller, inputs), _outputs(one, masked, inputs))
    except compress.CompressError as error:
        return first_line(error)[:100]
    if difference > TOLERANCE:
        # Rounding decides which of a detector's places are the best of many that are about as good.
        difference = min(difference, _difference_in_float64(one, smaller, masked, inputs))
    return _said(difference)


def _difference_in_float64(one: Subject, smaller: nn.Module, masked: nn.Module, inputs: Arguments) -> float:
    wide = tree_map_only(Tensor, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor, inputs)
    try:
        return _difference(*(_outputs(one, copy.deepcopy(model).double(), wide) for model in (smaller, masked)))
    except compress.CompressError:
        return float("inf")


def _outputs(one: Subject, model: nn.Module, inputs: Arguments) -> list[Tensor]:
    """The tensors that count among what ``model`` puts out, in float64."""
    torch.manual_seed(0)  # some draw random numbers in eval mode too
    outputs = infer(model, inputs_of(inputs))
    return [tensor.double() for tensor in tensors_in(selected(outputs, one.outputs)) if tensor.is_floating_point()]


def _difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of any output, relative to its largest number."""
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return float("inf")
        if other.numel():
            worst = max(worst, float((one - other).abs().max() / other.abs().max().clamp(min=1e-12)))
    return worst


def _said(difference: float) -> bool | str:
    return True if difference <= TOLERANCE else f"differs by {difference:.1e}"


def _trains(model: nn.Module, one: Subject) -> bool | str:
    """Whether a forward and a backward pass run in train mode; "fixed" where those of the dense network do not."""
    inputs = one.others["batch"]
    dense = _step(one.model, inputs)
    return _step(model, inputs) if dense is True else "fixed"


def _step(model: nn.Module, inputs: Arguments) -> bool | str:
    model.train()
    try:
        outputs = [out for out in tensors_in(inputs_of(inputs).call(model)) if out.requires_grad]
        torch.stack([out.float().square().mean() for out in outputs]).sum().backward()
    except Exception as error:  # noqa: BLE001 - whatever a network raises is the finding
        return first_line(error)[:100]
    finally:
        model.eval()
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    return True if grads and all(bool(grad.isfinite().all()) for grad in grads) else "gradients that are not finite"


def _loads(model: nn.Module, one: Subject, factory: Factory) -> bool | str:
    """Whether a file of the network gives the same outputs, and the same tokens, with and without a cache."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            compress.save(model, Path(folder) / "small.safetensors")
            again = compress.load(Path(folder) / "small.safetensors", factory)
            if _difference(_outputs(one, again, one.example), _outputs(one, model, one.example)) > 0:
                return "other outputs"
            if one.prompt is not None:
                tokens = _generated(model, one.prompt, cached=True)
                for other, cached in ((again, True), (again, False)):
                    if not tokens.equal(_generated(other, one.prompt, cached=cached)):
                        return f"other tokens {'with' if cached else 'without'} a cache"
        except Exception as error:  # noqa: BLE001 - whatever a network raises is the finding
            return first_line(error)[:100]
    return True


def _generated(model: nn.Module, prompt: Tensor, *, cached: bool) -> Tensor:
    generate: Callable[..., Tensor] = model.generate
    with torch.no_grad():
        return generate(prompt, max_new_tokens=_TOKENS, do_sample=False, use_cache=cached)


def _exports(one: Subject, _: Factory) -> Row:
    """Write an archive, and run it at two batch sizes."""
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dense.pt2"
        compress.save(one.model, path, _plain(one.example))
        again = compress.load(path)
    row: Row = {"seconds": time.process_time() - started}
    for what, inputs in (("equal", one.example), ("batch", one.others["batch"])):
        try:
            row[what] = _said(_difference(_outputs(one, again, inputs), _outputs(one, one.model, inputs)))
        except Exception as error:  # noqa: BLE001 - whatever a graph raises is the finding
            row[what] = first_line(error)[:100]
    return row


def _plain(inputs: Arguments) -> Any:
    """A single tensor as itself."""
    return inputs[0] if isinstance(inputs, tuple) and len(inputs) == 1 else inputs


def _quantizes(one: Subject, _: Factory) -> Row:
    """Static int8, held against the network itself."""
    batches = [_plain(inputs) for inputs in (one.example, one.others["batch"])]
    started = time.process_time()
    int8, report = compress.quantize(one.model, batches, max_accuracy_drop=1.0)
    row: Row = {"seconds": time.process_time() - started, "kernels": report.int8_kernels}
    row |= {"layers": len(report.layers), "int8_layers": len(report.layers) - len(report.float_layers)}
    row["reported_db"] = report.output_snr_db
    row["reasons"] = dict(Counter(_short(layer.reason) for layer in report.float_layers))
    for what, inputs in (("db_1", one.example), ("db_3", one.others["batch"])):
        try:
            row[what] = _snr_db(_outputs(one, one.model, inputs), _outputs(one, int8, inputs))
        except Exception as error:  # noqa: BLE001 - whatever a graph raises is the finding
            row[what] = first_line(error)[:100]
    return row


def _snr_db(reference: list[Tensor], other: list[Tensor]) -> float:
    pairs = list(zip(reference, other, strict=True))
    signal = sum(float(one.square().sum()) for one, _ in pairs)
    noise = sum(float((one - two).square().sum()) for one, two in pairs)
    return float(10 * torch.tensor(signal / max(noise, 1e-300), dtype=torch.float64).log10())


def _factorizes(one: Subject, _: Factory) -> Row:
    """Low rank: a quarter of each layer's ranks, where that saves anything."""
    started = time.process_time()
    config = compress.LowRankConfig(by="ratio", target=RANK_RATIO)
    thinner = compress.factorize(one.model, _plain(one.example), config, outputs=one.outputs, progress=False)
    row = {"seconds": time.process_time() - started, **_left(thinner)}
    try:
        outputs = [_outputs(one, thinner, inputs) for inputs in (one.example, one.others["batch"])]
    except compress.CompressError as error:
        return {**row, "runs": first_line(error)[:100]}
    finite = all(bool(out.isfinite().all()) for some in outputs for out in some)
    return {**row, "runs": finite or "numbers that are not finite"}


def _by_torch_pruning(one: Subject) -> nn.Module:
    import torch_pruning  # noqa: PLC0415 - an extra

    # As its own examples do it: the classifier keeps its outputs.
    layers = [module for module in one.model.modules() if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))]
    last = [layer for layer in layers if getattr(layer, "out_features", 0) == 1000] or layers[-1:]  # noqa: PLR2004
    pruner = torch_pruning.pruner.BasePruner(
        one.model,
        _plain(one.example),
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=RATIO,
        ignored_layers=last,
        output_transform=one.outputs,
    )
    pruner.step()
    return one.model


def _prunes_by_torch_pruning(one: Subject, _: Factory) -> Row:
    _prunes_tiny(_by_torch_pruning)
    started = time.process_time()
    smaller = _by_torch_pruning(one)
    row = {"seconds": time.process_time() - started, **_left(smaller)}
    infer(smaller, inputs_of(one.example), "its example inputs")
    return row


TOOLS: dict[str, Callable[[Subject, Factory], Row]] = {
    "compress": _prunes,
    "exports": _exports,
    "int8": _quantizes,
    "factorizes": _factorizes,
    "torch_pruning": _prunes_by_torch_pruning,
}
