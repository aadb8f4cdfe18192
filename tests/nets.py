"""Tiny networks, and how structured pruning is held against the masked ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.masked import masked_dense
from compress.pruning.plan import PruningPlan
from compress.pruning.structured import apply_plan, plan_pruning
from compress.pruning.surgery import _smaller


class Net(nn.Module):
    """A network of named modules and one function of them and the input: forward passes fit on a line."""

    def __init__(self, forward: Callable[[Net, Tensor], object], **modules: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> object:
        return self.run(self, x)

    def __deepcopy__(self, memo: dict[int, object]) -> Net:
        # The function holds no state; all that must be copied are the modules.
        modules = {name: copy.deepcopy(module, memo) for name, module in self._modules.items()}
        twin = Net(self.run, **modules)
        twin.train(self.training)
        return twin


def conv(ins: int, outs: int, kernel: int = 1, **settings: int) -> nn.Conv2d:
    """A convolution at the same resolution."""
    return nn.Conv2d(ins, outs, kernel, padding=kernel // 2, **settings)


def conv_bn(ins: int, outs: int, kernel: int = 3, **settings: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(conv(ins, outs, kernel, **settings), nn.BatchNorm2d(outs), nn.ReLU(inplace=True))


def pooled(x: Tensor) -> Tensor:
    """``[n, c, h, w] -> [n, c]``."""
    return x.mean((2, 3))


def head(ins: int) -> nn.Linear:
    """A classifier of five classes."""
    return nn.Linear(ins, 5)


def between(forward: Callable[[Tensor], Tensor], outs: int = 16, **settings: int) -> Net:
    """16 channels of a convolution ``a``, through ``forward``, into a convolution ``b`` that takes ``outs`` of them."""
    return Net(
        lambda n, x: n.h(pooled(n.b(forward(n.a(x))))), a=conv_bn(3, 16), b=conv(outs, 16, **settings), h=head(16)
    )


def num_params(model: nn.Module) -> int:
    """How many parameters ``model`` has."""
    return sum(parameter.numel() for parameter in model.parameters())


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """``model`` in eval mode and float64, with norm statistics and scales as unlike the initial ones as after training.

    Returns:
        The given model.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, low, high in (("running_mean", -0.5, 0.5), ("running_var", 0.5, 2.0)):
            if isinstance(getattr(module, name, None), Tensor):
                getattr(module, name).uniform_(low, high, generator=generator)
        if (
            isinstance(module, (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm))
            and module.weight is not None
        ):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
    return model.eval().double()


def largest_gradient_difference(small: nn.Module, dense: nn.Module, plan: PruningPlan, x: Tensor) -> float:
    """The largest difference of two models' gradients by the same outputs, where a parameter was kept, relative."""
    for model in (small, dense):
        model.zero_grad()
        out = model(x)
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)).sum().backward()
    theirs = dict(dense.named_parameters())
    worst = 0.0
    for name, parameter in small.named_parameters():
        own, full = parameter.grad, theirs[name].grad
        if own is None or full is None:
            assert own is None or not own.any()
            continue
        kept = {member.dim: ids for member, ids in plan.kept.items() if member.tensor == name}
        for member, factors in plan.scales.items():
            if member.tensor == name:
                own = own * torch.from_numpy(factors).reshape(
                    [-1 if dim == member.dim else 1 for dim in range(own.ndim)]
                )
        expected = _smaller(full, kept)
        worst = max(worst, float((own - expected).abs().max() / expected.abs().max().clamp(min=1.0)))
    return worst


def largest_difference(model: nn.Module, other: nn.Module, x: Tensor) -> float:
    """The largest difference of two models' outputs, relative to the largest output (or to 1)."""
    with torch.no_grad():
        a, b = model(x), other(x)
    return float((a - b).abs().max() / b.abs().max().clamp(min=1.0))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A tiny network and what pruning must make of it.

    Attributes:
        net: builds it.
        widths: output channels of some of its layers after a cut by a quarter.
        reason: part of the reason why something else than input and output stays whole; "" if nothing does.
        shape: of its input; of whole numbers below 10 if it has two dimensions.
        exact: whether the pruned network equals the masked dense one; not so for norms over kept channels.
    """

    net: Callable[[], nn.Module]
    widths: Mapping[str, int]
    reason: str = ""
    shape: tuple[int, ...] = (1, 3, 8, 8)
    exact: bool = True

    def check(self) -> PruningPlan:
        """Prune it by a quarter, and hold the outcome against the oracle and the expectations."""
        torch.manual_seed(0)
        net = lively(self.net())
        x = torch.randn(self.shape).double() if len(self.shape) > 2 else torch.randint(0, 10, self.shape)
        plan = plan_pruning(net, x, 0.25)
        small = apply_plan(net, plan)
        modules = dict(small.named_modules())
        found = {name: _width(modules[name]) for name in self.widths}
        assert found == self.widths, str(plan)
        assert num_params(small) == plan.num_params_after
        batch = torch.cat([x, x.flip(-1), x])
        if self.exact:
            assert largest_difference(small, masked_dense(net, plan), batch) < 1e-9
        else:
            assert small(batch).shape == net(batch).shape
        reasons = [group.frozen for group in plan.groups if group.frozen and not _is_end(group.frozen)]
        assert any(self.reason in reason for reason in reasons) if self.reason else not reasons, str(plan)
        return plan


def _width(module: nn.Module) -> int:
    """The width a module says it has, which must be that of its weight."""
    for name in ("out_channels", "out_features", "num_features", "num_channels", "num_parameters", "embedding_dim"):
        if hasattr(module, name):
            return int(getattr(module, name))
    return int(module.normalized_shape[0])


def _is_end(reason: str) -> bool:
    return reason.startswith(("model output", "fed by values without channel labels"))
