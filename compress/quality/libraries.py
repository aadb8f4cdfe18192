"""torchmetrics, which not everybody needs."""

from __future__ import annotations

import importlib
from types import ModuleType

from compress.errors import ConfigError


def torchmetrics(part: str) -> ModuleType:
    """The module ``torchmetrics.functional.<part>``.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        return importlib.import_module(f"torchmetrics.functional.{part}")
    except ImportError as cause:
        raise ConfigError(
            "this quality is computed by torchmetrics, which is not installed: pip install 'pytest-compress[metrics]'"
        ) from cause
