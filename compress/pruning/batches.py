"""Calibration batches: data that shows what a network does, where its weights alone do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from compress.channels.trace import Example
from compress.errors import ConfigError, ModelError, first_line
from compress.pruning.checks import check_example
from compress.train.evaluation import device_of


class Batch(NamedTuple):
    """Inputs of a forward pass, on the model's device, and the labels that came with them, if any did."""

    inputs: Example
    labels: Any


def each_batch(model: nn.Module, batches: Iterable[Any]) -> Iterator[Batch]:
    """Read what a caller gave as ``batches``.

    Args:
        model: the network that is to run on them.
        batches: inputs as :func:`compress.prune_channels` takes them for an example, or pairs ``(inputs, labels)``: a
            tuple or list of two is always such a pair.

    Raises:
        ConfigError: if there is no batch, or one that is neither.
    """
    device = device_of(model)
    count = 0
    for one in batches:
        inputs, labels = one if isinstance(one, (tuple, list)) and len(one) == 2 else (one, None)  # noqa: PLR2004
        inputs, labels = tree_map_only(Tensor, lambda tensor: tensor.to(device), (inputs, labels))
        yield Batch(check_example(model, inputs), labels)
        count += 1
    if not count:
        raise ConfigError("batches must hold at least one batch, got none (an iterator can be used only once)")


def run(model: nn.Module, inputs: Example) -> Any:
    """The outputs of ``model``.

    Raises:
        ModelError: if its forward pass fails.
    """
    try:
        return model(*inputs.args, **inputs.kwargs)
    except Exception as cause:
        reason = first_line(cause)
        raise ModelError(f"the forward pass on a calibration batch failed: {reason}") from cause
