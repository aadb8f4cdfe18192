"""Low-rank factorization: linear and convolution layers become chains of smaller ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from compress.calling.inputs import Inputs, each_batch, infer, inputs_of
from compress.calling.outputs import Outputs, selected
from compress.errors import ConfigError, DataError, ModelError
from compress.lowrank.chains import chains
from compress.lowrank.checks import check_model
from compress.lowrank.config import LowRankConfig
from compress.lowrank.decompositions import decompose, kinds_for
from compress.lowrank.moments import Whitening, lost_means, whitenings
from compress.lowrank.plan import FactorizationPlan, PlannedLayer
from compress.lowrank.ranks import Choice, Table, cheapest_within, shared_out, table_of
from compress.lowrank.reads import reads_in_the_way
from compress.lowrank.sites import Layer, Site, find_sites, pass_of, watched
from compress.macs import Macs, macs_of
from compress.modules.copying import copied
from compress.modules.substitute import Substitute, replace_
from compress.system.progress import track

Measure = Callable[[nn.Module, nn.Module], float]
"""``(compressed, dense)`` to the ratio of their latencies."""

_DEFAULT = LowRankConfig()
# How often the latency is measured on the way to a target, after the first time.
_MEASUREMENTS = 7


def factorize(
    model: nn.Module,
    example_inputs: Any,
    config: LowRankConfig = _DEFAULT,
    *,
    calibration: Iterable[Any] | None = None,
    measure: Measure | None = None,
    outputs: Outputs | None = None,
    progress: bool = True,
) -> nn.Module:
    """A new model with low-rank chains in the places of layers where that saves MACs; the given one is untouched.

    A linear layer and a 1 x 1 convolution become two; a larger convolution becomes two or three, in whichever way
    needs the fewest MACs at an equal error. Stride, padding, dilation and bias are kept, tied weights stay tied.
    Grouped convolutions, layers of derived types and layers whose weight something else reads stay whole.

    Args:
        model: any model that runs on ``example_inputs``.
        example_inputs: a tensor, a tuple of positional arguments, or a mapping of keyword arguments.
        config: which ranks.
        calibration: batches, see :func:`~compress.calling.inputs.each_batch`, gone through twice. With them the error
            of the layers' outputs is made small and not that of their weights, and biases take up what their mean
            loses.
        measure: the latency of one model over another's; needed for the target "latency" alone.
        outputs: names the outputs that count, as in :class:`~compress.PruneOptions`: those must be there still.
        progress: whether to show a bar, if stderr is a terminal.

    Returns:
        The model, in the modes (train or eval) of the given one. Print :func:`plan_factorization` for what it does.

    Raises:
        ConfigError: if a setting breaks its rule, names no module, is larger than a layer's rank, or cannot be reached.
        DataError: if ``calibration`` is given and empty.
        ModelError: if the model has no such layer, cannot be run, or has masks that are not permanent yet.
    """
    plan = plan_factorization(
        model,
        example_inputs,
        config,
        calibration=calibration,
        measure=measure,
        outputs=outputs,
        progress=progress,
    )
    small = _applied(model, plan.replacements)
    _check_runs(small, model, inputs_of(example_inputs), plan.replacements, outputs)
    return small


def plan_factorization(
    model: nn.Module,
    example_inputs: Any,
    config: LowRankConfig = _DEFAULT,
    *,
    calibration: Iterable[Any] | None = None,
    measure: Measure | None = None,
    outputs: Outputs | None = None,
    progress: bool = True,
) -> FactorizationPlan:
    """Decide what :func:`factorize` does to each layer, and say why the rest stays. Same arguments and errors."""
    check_model(model)
    if config.by == "latency" and measure is None:
        raise ConfigError("a target for latency needs a function that measures it: measure=")
    example = inputs_of(example_inputs)
    # A forward pass may leave something in the model. The weights are only lent, for they may be big.
    model = copied(model, {id(parameter): parameter for parameter in model.parameters()})
    found, whole = find_sites(model, config)
    macs = _observe(model, example, found, outputs)
    if config.by == "macs":
        macs.whole("a target for macs")
    whole |= {name: reason for site in found if (reason := _unfit(site, config)) for name in site.layers}
    sites = [site for site in found if _unfit(site, config) is None]
    whole |= (read := reads_in_the_way(model, sites, example))
    sites = [site for site in sites if not read.keys() & site.layers.keys()]
    if isinstance(calibration, (Tensor, Mapping)):
        raise ConfigError(f"calibration must be batches of inputs, got a single {type(calibration).__name__}")
    batches = None if calibration is None else _inputs_in(calibration, example)
    draft = _Draft(
        config=config,
        model=model,
        sites=sites,
        macs=macs.total,
        uncounted=macs.uncounted,
        params=sum(parameter.numel() for parameter in model.parameters()),
        batches=batches,
        whitenings={} if batches is None else whitenings(model, batches, sites),
    )
    shown = track(sites, "factorizing", shown=progress)
    tables = [table_of(site, draft.weight(site), config) for site in shown]
    if config.by in ("macs", "params", "latency") and not any(len(table.errors) for table in tables):
        raise ModelError(_nothing(draft, tables, whole))
    return _plan(draft, tables, _choices(draft, tables, config, measure), whole)


def _nothing(draft: _Draft, tables: Sequence[Table], whole: Mapping[str, str]) -> str:
    """What to say where no target can be reached, for nothing can be factorized."""
    reasons = {name: _why_whole(table, draft.config.round_to) for table in tables for name in table.site.layers}
    name, reason = next(iter({**reasons, **whole}.items()))
    return (
        f"no layer of {type(draft.model).__name__} can be factorized so that it gets cheaper, and so no target for"
        f" {draft.config.by} be reached ('{name}': {reason})"
    )


def _inputs_in(calibration: Iterable[Any], example: Inputs) -> list[Inputs]:
    # They are gone through twice.
    batches = list(calibration)
    if not batches:
        raise DataError("calibration must hold at least one batch of inputs, got none")
    return [batch.inputs for batch in each_batch(batches, name="calibration", like=example)]


def _unfit(site: Site, config: LowRankConfig) -> str | None:
    """Why there is nothing to choose for a weight."""
    if not site.passes:
        return "the example inputs never reach it"
    if not kinds_for(site.weight.shape, config.kinds):
        return f"its kernel cannot be decomposed as {' or '.join(config.kinds)}"
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Draft:
    """The settings, the model, its sites, and what was seen in its runs."""

    config: LowRankConfig
    model: nn.Module
    sites: Sequence[Site]
    macs: int
    uncounted: tuple[str, ...]
    params: int
    batches: Sequence[Inputs] | None
    whitenings: Mapping[Site, Whitening]

    def weight(self, site: Site) -> Tensor:
        """The site's weight, whitened where calibration data reached it."""
        whitening = self.whitenings.get(site)
        return whitening.applied(site.weight) if whitening else site.weight

    def chains(self, choices: Mapping[Site, Choice]) -> dict[Site, dict[str, Substitute]]:
        """The chosen layers, at each site by the name of the layer that they take the place of."""
        made = {}
        for site, choice in choices.items():
            stages = decompose(self.weight(site), choice.kind).stages(choice.ranks)
            whitening = self.whitenings.get(site)
            made[site] = chains(site, whitening.undone(stages) if whitening else stages)
        return made


def _observe(model: nn.Module, inputs: Inputs, sites: Collection[Site], outputs: Outputs | None) -> Macs:
    """Note every pass through a site; the MACs of the whole model."""

    def see(site: Site, layer: Layer, given: Tensor, output: Tensor) -> None:
        site.passes.append(pass_of(layer, given, output))

    with watched(sites, see):
        return macs_of(lambda: selected(infer(model, inputs), outputs))


def _choices(
    draft: _Draft, tables: Sequence[Table], config: LowRankConfig, measure: Measure | None
) -> Mapping[Site, Choice]:
    if config.by in ("energy", "ratio", "rank"):
        found = {table.site: cheapest_within(table) for table in tables}
        return {site: choice for site, choice in found.items() if choice is not None}
    if config.by == "latency" and measure is not None:
        return _as_fast_as(draft, tables, config, measure)
    dense = draft.params if config.by == "params" else draft.macs
    return shared_out(tables, config, dense=dense, budget=config.target * dense)


def _as_fast_as(
    draft: _Draft, tables: Sequence[Table], config: LowRankConfig, measure: Measure
) -> Mapping[Site, Choice]:
    """The choices with the most MACs whose latency, as measured, is within the target."""
    least = draft.macs - sum(table.site.macs - int(table.macs.min(initial=table.site.macs)) for table in tables)

    def at(budget: float) -> tuple[Mapping[Site, Choice], float]:
        choices = shared_out(tables, config, dense=draft.macs, budget=budget)
        return choices, measure(_applied(draft.model, _by_name(draft.chains(choices))), copied(draft.model))

    best, ratio = at(least)
    if ratio > config.target:
        raise ConfigError(f"target must be at least {ratio:.3g} for this model, got {config.target:g} (latency)")
    low, high = float(least), float(draft.macs)
    for _ in range(_MEASUREMENTS):
        middle = (low + high) / 2
        choices, ratio = at(middle)
        if ratio <= config.target:
            best, low = choices, middle
        else:
            high = middle
    return best


def _plan(
    draft: _Draft, tables: Sequence[Table], choices: Mapping[Site, Choice], whole: Mapping[str, str]
) -> FactorizationPlan:
    made = draft.chains(choices)
    replacements = _by_name(made)
    if draft.batches is not None:
        _make_up_(replacements, lost_means(draft.model, draft.batches, made))
    layers = [_planned(table, choices.get(table.site), draft.config.round_to) for table in tables]
    layers += [PlannedLayer(names=(name,), reason=reason) for name, reason in whole.items()]
    order = {name: number for number, (name, _) in enumerate(draft.model.named_modules())}
    return FactorizationPlan(
        layers=sorted(layers, key=lambda layer: order[layer.names[0]]),
        uncounted=draft.uncounted,
        macs_before=draft.macs,
        macs_after=draft.macs - sum(layer.macs_before - layer.macs_after for layer in layers),
        num_params_before=draft.params,
        num_params_after=draft.params - sum(layer.params_before - layer.params_after for layer in layers),
        replacements=replacements,
    )


def _make_up_(replacements: Mapping[str, Substitute], lost: Mapping[str, Tensor]) -> None:
    """Add to each chain's bias what its mean output lost; to one that several share, once."""
    biases = {name: cast("nn.Parameter", replacements[name][-1].bias) for name in lost}
    for name in {id(bias): name for name, bias in biases.items()}.values():
        biases[name].data += lost[name].to(biases[name].dtype)


def _planned(table: Table, choice: Choice | None, round_to: int) -> PlannedLayer:
    site = table.site
    params = site.layer.weight.numel()
    if choice is None:
        return PlannedLayer(
            names=tuple(site.layers),
            reason=_why_whole(table, round_to),
            macs_before=site.macs,
            macs_after=site.macs,
            params_before=params,
            params_after=params,
        )
    return PlannedLayer(
        names=tuple(site.layers),
        kind=choice.kind,
        ranks=choice.ranks if choice.kind == "tucker" else choice.ranks[:1],
        error=choice.error,
        macs_before=site.macs,
        macs_after=choice.macs,
        params_before=params,
        params_after=choice.params,
    )


def _why_whole(table: Table, round_to: int) -> str:
    if len(table.errors) and table.bound == math.inf:
        return "other layers lose less"
    return "no rank saves MACs" if round_to == 1 else f"no rank that is a multiple of {round_to} saves MACs"


def _by_name(made: Mapping[Site, Mapping[str, Substitute]]) -> dict[str, Substitute]:
    return {name: replacement for named in made.values() for name, replacement in named.items()}


def _applied(model: nn.Module, replacements: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of the model with copies of the new layers."""
    # The new layers together, so that weights tied across them stay tied in the copy.
    return replace_(copied(model), copy.deepcopy(dict(replacements)))


def _check_runs(
    small: nn.Module,
    model: nn.Module,
    inputs: Inputs,
    replacements: Mapping[str, nn.Module],
    outputs: Outputs | None,
) -> None:
    """Refuse a model that reads a replaced layer's attributes, and so no longer runs."""
    try:
        selected(infer(small, inputs), outputs)
    except ModelError as cause:
        raise ModelError(
            f"{type(model).__name__} cannot do without a layer that was replaced, name it in ignore: {cause}"
            f" ({len(replacements)} layers were replaced)"
        ) from cause
