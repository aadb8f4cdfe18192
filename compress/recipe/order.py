"""Which steps cannot follow which, and why: read off a table before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compress.errors import ConfigError

# Step -> why no step can come after it.
_LAST: Mapping[str, str] = {
    "half": "half precision is for running a model, not for changing it",
    "quantize": "int8 weights can be neither cut, nor factorized, nor trained",
    "quantize_aware_fit": "int8 weights can be neither cut, nor factorized, nor trained",
}

# (earlier step, later step) -> why they cannot come in this order, whatever lies between them.
_REFUSED: Mapping[tuple[str, str], str] = {
    ("prune_weights", "factorize"): "the factors would have no zeros",
    ("prune_weights", "prune_channels"): "the masks hold the weights at their size",
    ("prune_weights", "prune_rounds"): "the masks hold the weights at their size",
    ("fit", "reconstruct"): "what was trained would be fitted back to the dense network",
    ("prune_rounds", "reconstruct"): "what was trained between the cuts would be fitted back to the dense network",
    ("reconstruct", "recalibrate"): "the fit aims at the dense network's statistics",
}


def refusal(earlier: str, later: str) -> str | None:
    """Why the step ``later`` cannot come after the step ``earlier``; None where it can."""
    return _LAST.get(earlier) or _REFUSED.get((earlier, later))


def check_order(names: Sequence[str], where: str) -> None:
    """Refuse steps that cannot work in their order.

    Args:
        names: of the steps, in order.
        where: the recipe, for the message.

    Raises:
        ConfigError: for the first pair of steps that cannot be.
    """
    for second, later in enumerate(names):
        for first, earlier in enumerate(names[:second]):
            if reason := refusal(earlier, later):
                raise ConfigError(
                    f"{later} must not come after {earlier}: {reason} ({where}, steps {first + 1} and {second + 1})"
                )
