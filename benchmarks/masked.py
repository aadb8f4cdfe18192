"""What a pruned network must compute: the one it was made from, with zeros in place of all that was removed.

Norms over channels are apart: their statistics run over the channels that are kept. What is kept is read off the zeros
themselves, by code that shares nothing with the cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from compress.modules.copying import copied
from compress.pruning.plan import PruningPlan


def masked_dense(model: nn.Module, plan: PruningPlan) -> nn.Module:
    """A copy of ``model`` at its full size, with zeros wherever ``plan`` removes something.

    A removed channel of a norm has weight, bias and mean 0 and variance 1, so that it puts out exact zeros.
    """
    dense = copied(model)
    state = {**dict(dense.named_parameters()), **dict(dense.named_buffers())}
    with torch.no_grad():
        for (name, dim), indices in plan.kept.items():
            value = 1.0 if name.endswith("running_var") else 0.0
            kept = torch.from_numpy(indices)
            parts = state[name].chunk(len(kept)) if kept.ndim > 1 else [state[name]]
            for part, some in zip(parts, kept if kept.ndim > 1 else [kept], strict=True):
                gone = torch.ones(part.shape[dim], dtype=torch.bool)
                gone[some] = False
                part.movedim(dim, 0)[gone] = value
        _give_length_(state)
    mode = _OverKept()
    dense.register_forward_pre_hook(lambda *_: mode.__enter__() and None)
    dense.register_forward_hook(lambda *_: mode.__exit__(None, None, None), always_call=True)
    return dense


def _give_length_(state: Mapping[str, Tensor]) -> None:
    """Slices of weight norm's directions that are zero get a length: their scale is 0, and 0 / 0 is not."""
    for name, scale in state.items():
        for ours, theirs in (("weight_g", "weight_v"), ("original0", "original1")):
            if name.endswith(ours) and scale.ndim:
                direction = state[name.removesuffix(ours) + theirs]
                over = [dim for dim in range(scale.ndim) if scale.shape[dim] == 1]
                direction.masked_fill_(direction.norm(dim=over, keepdim=True) == 0, 1.0)


class _OverKept(TorchFunctionMode):
    """Within it the statistics of norms run over the channels that are not masked."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _OWN.get(func, func)(*args, **(kwargs or {}))


def _layer_norm(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    if len(shape) > 1:
        return functional.layer_norm(x, shape, weight, bias, eps)
    kept = _kept(x, weight, x.ndim - 1)
    some = functional.layer_norm(x[..., kept], (len(kept),), _of(weight, kept), _of(bias, kept), eps)
    return torch.zeros_like(x).index_copy(-1, kept, some)


def _rms_norm(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    if len(shape) > 1:
        return functional.rms_norm(x, shape, weight, eps)
    kept = _kept(x, weight, x.ndim - 1)
    some = functional.rms_norm(x[..., kept], (len(kept),), _of(weight, kept), eps)
    return torch.zeros_like(x).index_copy(-1, kept, some)


def _group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    kept = _kept(x, weight, 1)
    some = functional.group_norm(x[:, kept], groups, _of(weight, kept), _of(bias, kept), eps)
    return torch.zeros_like(x).index_copy(1, kept, some)


def _mean(x: Tensor, dim: Any = None, keepdim: bool = False, **more: Any) -> Tensor:  # noqa: FBT001, FBT002 - torch's
    """The mean; one that keeps its dimension, as that of a norm does, over slices that are not zero throughout."""
    mean = torch.mean(x, **more) if dim is None else torch.mean(x, dim, keepdim, **more)
    if dim is None or not keepdim:
        return mean
    masked = torch.zeros((), dtype=torch.bool)
    for one in [dim] if isinstance(dim, int) else dim:
        kept = _kept(x, None, one % x.ndim)
        mean = mean * (x.shape[one] / max(1, len(kept)))
        shape = [-1 if at == one % x.ndim else 1 for at in range(x.ndim)]
        masked = masked | torch.ones(x.shape[one], dtype=torch.bool).index_fill(0, kept, value=False).reshape(shape)
    mean.masked = masked
    return mean


def _var(x: Tensor, dim: Any = None, *args: Any, **more: Any) -> Tensor:
    """The variance, over slices that are not zero throughout."""
    if isinstance(dim, int):
        x = x.index_select(dim, _kept(x, None, dim % x.ndim))
    return torch.var(x, dim, *args, **more)


def _sub(x: Any, other: Any, **more: Any) -> Tensor:
    """The difference; that to a mean is zero where what the mean was taken of is masked."""
    difference = torch.sub(x, other, **more)
    masked = getattr(other, "masked", None)
    return difference if masked is None else difference.masked_fill(masked, 0.0)


def _kept(x: Tensor, weight: Tensor | None, dim: int) -> Tensor:
    alive = x.movedim(dim, 0).flatten(1).ne(0).any(1) if weight is None else weight.ne(0)
    return alive.nonzero().flatten()


def _of(tensor: Tensor | None, kept: Tensor) -> Tensor | None:
    return None if tensor is None else tensor[kept]


_OWN: dict[Callable[..., Any], Callable[..., Tensor]] = {
    functional.layer_norm: _layer_norm,
    functional.group_norm: _group_norm,
    functional.rms_norm: _rms_norm,
    **dict.fromkeys((torch.mean, Tensor.mean), _mean),
    **dict.fromkeys((torch.var, Tensor.var), _var),
    **dict.fromkeys((torch.sub, Tensor.sub, Tensor.__sub__), _sub),
}
