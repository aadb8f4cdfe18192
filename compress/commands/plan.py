"""``plan``: which channels of a model would go, what stays and why, before anything is cut."""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING, Any

from compress.commands.arguments import add_json, print_json
from compress.commands.models import WORKLOAD_HELP
from compress.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from compress.calling.outputs import Outputs
    from compress.pruning.plan import PlannedGroup, PruningPlan

_DESCRIPTION = """\
Run the model once on channel labels, and show which channels structured pruning would remove, which groups stay whole
and why. Nothing is cut, trained or measured. Weights count: of a workload that trains its dense model the untrained
network is looked at, which is as wide.
"""


def add_plan_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``plan``."""
    parser = commands.add_parser(
        "plan", help="show what pruning would remove from a model, what stays and why", description=_DESCRIPTION
    )
    parser.set_defaults(run=_plan)
    add = parser.add_argument
    add("model", metavar="MODEL", help=f"{WORKLOAD_HELP}; with --input, module:function returning a torch.nn.Module")
    add("--input", metavar="SHAPE", type=_shape, help="shape of one input, such as 1,3,224,224; its values are random")
    add("--pruning-ratio", metavar="X", type=float, help="fraction of channels to remove, in [0, 1) (default: 0.2)")
    add("--max-macs", metavar="N", type=int, help="in place of a ratio: multiply-accumulates that may be left")
    add("--max-params", metavar="N", type=int, help="in place of a ratio: parameters that may be left")
    add("--importance", metavar="NAME", default="l1", help="which channels count least: l1, l2, bn_scale, random (l1)")
    add("--scope", choices=("layer", "global"), default="layer", help="the same fraction of each group, or of all")
    add("--ignore", metavar="MODULE", action="append", default=[], help="a module to leave whole; may be repeated")
    add_json(parser)


def _plan(options: argparse.Namespace) -> None:
    """Find the model, plan, print."""
    from compress.pruning.options import PruneOptions
    from compress.pruning.structured import plan_pruning

    model, example, outputs = _subject(options.model, options.input)
    choice = PruneOptions(
        max_macs=options.max_macs, max_params=options.max_params, scope=options.scope, outputs=outputs
    )
    plan = plan_pruning(
        model, example, options.pruning_ratio, options.importance, ignore=options.ignore, options=choice
    )
    if options.json:
        print_json(as_json(plan))
    else:
        print(as_text(plan), end="")


def as_text(plan: PruningPlan) -> str:
    """A headline, what is cut, and what stays whole: the reasons, each with how many channels it holds back."""
    share = plan.num_params_after / plan.num_params_before if plan.num_params_before else 1.0
    cut = [group for group in plan.groups if group.kept < group.channels]
    headline = f"{plan.num_params_before:,} parameters, {plan.num_params_after:,} of them stay ({share:.1%})"
    lines = [
        f"{headline} at a pruning ratio of {plan.pruning_ratio:.3g}",
        *plan.notes,
        "",
        f"cut: {len(cut)} of {len(plan.groups)} groups of channels that must go together",
        *(f"  {group.channels:6} -> {group.kept:<6} {_where(group)}" for group in cut),
    ]
    whole = [group for group in plan.groups if group.kept == group.channels]
    if whole:
        lines += ["", f"whole: {len(whole)} groups"]
        lines += [f"  {group.channels:6}           {_where(group)}: {_why(group)}" for group in whole]
    if plan.repairs:
        lines += ["", "attributes that say how wide something is, and change with it"]
        lines += [f"  {repair}" for repair in plan.repairs]
    return "\n".join([*lines, ""])


def as_json(plan: PruningPlan) -> dict[str, Any]:
    """The same for a machine, with every member of every group."""
    return {
        "pruning_ratio": plan.pruning_ratio,
        "num_params_before": plan.num_params_before,
        "num_params_after": plan.num_params_after,
        "notes": list(plan.notes),
        "groups": [
            {
                "members": [{"tensor": member.tensor, "dim": member.dim} for member in group.members],
                "channels": group.channels,
                "kept": group.kept,
                "whole_because": _why(group) if group.kept == group.channels else None,
            }
            for group in plan.groups
        ],
        "repairs": [str(repair) for repair in plan.repairs],
    }


def _where(group: PlannedGroup) -> str:
    """Its first tensors, and how many more there are."""
    shown, more = group.members[:2], len(group.members) - 2
    return ", ".join(map(str, shown)) + (f" and {more} more" if more > 0 else "")


def _why(group: PlannedGroup) -> str:
    return group.frozen or "the ratio leaves none to remove"


def _subject(name: str, shape: list[int] | None) -> tuple[nn.Module, Any, Outputs | None]:
    """The model, what it is called with, and which of its outputs count."""
    import torch

    from compress.workload.workload import load_workload

    if shape is None:
        workload = load_workload(name)
        return workload.build().eval(), workload.inputs, workload.outputs
    generator = torch.Generator().manual_seed(0)
    return _built(name).eval(), torch.randn(*shape, generator=generator), None


def _built(name: str) -> nn.Module:
    """What ``module:function`` returns."""
    from torch import nn

    module, _, function = name.partition(":")
    try:
        model = getattr(importlib.import_module(module), function)()
    # Somebody's own code may raise anything; an empty name is a ValueError to importlib.
    except Exception as cause:
        raise ConfigError(f"model {name!r} cannot be built: {type(cause).__name__}: {cause}") from cause
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model {name!r} must return a torch.nn.Module, got {type(model).__name__}")
    return model


def _shape(text: str) -> list[int]:
    sizes = text.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"must be whole numbers above 0, such as 1,3,224,224, got {text!r}")
    return [int(size) for size in sizes]
