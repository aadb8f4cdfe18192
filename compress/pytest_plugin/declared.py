"""The workload of a run, loaded once, and the tests that are made for each of its qualities and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from compress.pytest_plugin.run import RUN, is_own

if TYPE_CHECKING:
    from compress.workload.workload import Workload

# What tests are parametrized by.
QUALITY_PARAMETER = "_quality_name"
OWN_METRIC_PARAMETER = "_own_metric_name"

# Stands for the qualities of a workload that cannot be loaded.
_UNKNOWN = "unknown"

_WORKLOAD: pytest.StashKey[Workload] = pytest.StashKey()


def load_workload(config: pytest.Config) -> Workload:
    """What ``--compress-workload`` names, loaded once.

    Raises:
        CompressError: if there is none, or it cannot be loaded.
    """
    if _WORKLOAD not in config.stash:
        from compress.workload.workload import load_workload, untrained

        settings = config.stash[RUN].settings
        workload = load_workload(settings.workload)
        config.stash[_WORKLOAD] = untrained(workload) if settings.train_dense else workload
    return config.stash[_WORKLOAD]


def make_tests(metafunc: pytest.Metafunc) -> None:
    """Run whatever asks for ``quality`` or ``own_metric`` once for each."""
    for parameter in (QUALITY_PARAMETER, OWN_METRIC_PARAMETER):
        if parameter in metafunc.fixturenames:
            names = _names(metafunc, parameter)
            # Of a wider scope they would have pytest put the tests in their order, not in that of the recipes.
            metafunc.parametrize(parameter, names, indirect=True, ids=names, scope="function")


def is_for_nothing(item: pytest.Item) -> bool:
    """Whether it stands for an empty set of qualities or metrics, which pytest would report as skipped."""
    spec = getattr(item, "callspec", None)
    names = (QUALITY_PARAMETER, OWN_METRIC_PARAMETER)
    return spec is not None and any(not isinstance(spec.params.get(name, ""), str) for name in names)


def _names(metafunc: pytest.Metafunc, parameter: str) -> list[str]:
    """Where a project has a fixture ``workload`` of its own, which nobody can ask before it runs, those of images."""
    config = metafunc.config
    definitions = metafunc._arg2fixturedefs.get("workload", ())
    if definitions and not is_own(definitions[-1]):
        return ["top1_error", "top5_error"] if parameter == QUALITY_PARAMETER else []
    try:
        workload = load_workload(config)
        return [one.name for one in (workload.qualities if parameter == QUALITY_PARAMETER else workload.metrics)]
    except Exception:  # noqa: BLE001 - whatever it is, the fixture `workload` meets it again, and says so
        return [_UNKNOWN] if parameter == QUALITY_PARAMETER else []
