"""A smaller network fitted layer by layer to the dense one, both run side by side on all batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import nn

from compress.calling.inputs import Inputs
from compress.channels.modes import plain_forward
from compress.errors import ConfigError, ModelError
from compress.reconstruction.moments import Fit, Moments
from compress.reconstruction.pair import HELD_OUT, Origin, Pair, Sums, Work, num_examples
from compress.reconstruction.products import Product
from compress.reconstruction.report import LayerFit, ReconstructionReport
from compress.reconstruction.survey import Site, Survey, matched, surveyed

Counted = Callable[[Iterable[int]], Iterable[int]]


def fit_layers_(
    small: nn.Module,
    dense: nn.Module,
    batches: Sequence[Inputs],
    origin: Origin,
    *,
    seed: int = 0,
    counted: Counted = iter,
) -> ReconstructionReport:
    """Fit every layer of ``small`` in place, in the order in which they run, to the outputs that ``dense`` has there.

    Args:
        small: in eval mode; may keep tensors that its forward pass stores, so give a copy.
        dense: in eval mode, likewise.
        batches: on the models' device.
        origin: which of the dense network's outputs the smaller one kept.
        seed: of the choice of positions.
        counted: hands on the numbers of the products that it is given, and may show how far it is.

    Raises:
        ConfigError: if there are too few examples to hold any out.
        ModelError: if a forward pass fails, the two do not run the same layers, or activations are not finite.
    """
    total = sum(num_examples(batch) for batch in batches)
    if total < HELD_OUT:
        raise ConfigError(f"batches must hold at least {HELD_OUT} examples, one of which is held out, got {total}")
    # Fused attention would hide its products.
    with plain_forward([*small.parameters(), *dense.parameters()]):
        theirs, ours = surveyed(dense, batches[0]), surveyed(small, batches[0])
        work = Work(
            small=small,
            dense=dense,
            batches=batches,
            origin=origin,
            seed=seed,
            survey=ours,
            calls=matched(theirs.calls, ours.calls, origin.counterpart),
        )
        layers = tuple(_fit_all_(work, counted))
    return ReconstructionReport(layers=layers, examples=total, held_out=total // HELD_OUT)


def _fit_all_(work: Work, counted: Counted) -> Iterator[LayerFit]:
    ours = work.survey
    sites = list(dict.fromkeys(ours.calls))
    done = {
        site: LayerFit(name=_layer_name(site, ours), reason=reason)
        for theirs, site in work.calls
        if (reason := ours.obstacle(site) if theirs is not None else "the last of the factors is fitted")
    }
    while not _rounded(work, done, counted):
        pass
    yield from (done[site] for site in sites)
    yield from _unread(work.small, {site.tensor for site in sites}, ours)


def _rounded(work: Work, done: dict[Site, LayerFit], counted: Counted) -> bool:
    """Run the networks, and fit what is not done yet; False if that must be begun anew.

    A weight that several products read is fitted at the last of them, to the outputs of all. What the others put out
    is then no longer what was run on, so all begins anew, with that weight done.
    """
    times = Counter(site for _, site in work.calls)
    left = Counter(times)
    sums: dict[Site, Sums] = {}
    with ExitStack() as stack:
        pairs = [stack.enter_context(Pair(work, number)) for number in range(len(work.batches))]
        for call in counted(range(len(work.calls))):
            dense_site, site = work.calls[call]
            left[site] -= 1
            for pair in pairs:
                pair.advance(call)
                if site not in done:
                    own = sums[site] = sums.get(site) or pair.new_sums(call)
                    pair.look(call, own, times[site])
                if dense_site is not None:
                    pair.let_dense_go_on()
            if site not in done and not left[site]:
                done[site] = _fitted(work, site, pairs[0].ours, sums.pop(site).moments)
                if times[site] > 1 and done[site].is_fitted:
                    return False
    return True


def _fitted(work: Work, site: Site, product: Product, moments: Moments) -> LayerFit:
    name = _layer_name(site, work.survey)
    if not moments.is_finite():
        raise ModelError(f"activations must be finite for layers to be fitted, those of '{name}' are not")
    fit = moments.fit()
    if fit.update is not None:
        with torch.no_grad():
            product.weight.copy_(product.weight.double() + product.unmatrix(fit.update.weight))
            if fit.update.bias is not None and product.bias is not None:
                product.bias.copy_(product.bias.double() + fit.update.bias.flatten())
    return LayerFit(
        name=name,
        is_fitted=fit.update is not None,
        reason=_reason(fit),
        error_before=fit.before,
        error_after=fit.before if fit.after is None else fit.after,
        ridge=fit.ridge,
        inputs=moments.num_inputs,
        positions=moments.count,
    )


def _reason(fit: Fit) -> str:
    if fit.update is not None:
        return ""
    return "its outputs are the dense network's" if fit.after is None else "the held-out error would not fall"


def _layer_name(site: Site, survey: Survey) -> str:
    layer, _, leaf = site.tensor.rpartition(".")
    parts = list(dict.fromkeys(other for other in survey.calls if other.tensor == site.tensor))
    name = layer if leaf == "weight" else site.tensor
    return name if len(parts) == 1 else f"{name}, part {parts.index(site) + 1}"


def _unread(small: nn.Module, read: set[str], survey: Survey) -> Iterator[LayerFit]:
    """The matrices among the parameters that no product reads."""
    for name, parameter in small.named_parameters():
        if name in read or parameter.ndim < 2:  # noqa: PLR2004 - vectors belong to norms and biases
            continue
        readers = survey.readers.get(name)
        by = f"only {', '.join(sorted(readers))} reads it" if readers else "the batches never reach it"
        layer, _, leaf = name.rpartition(".")
        yield LayerFit(name=layer if leaf == "weight" else name, reason=by)
