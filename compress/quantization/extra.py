"""The optional package that quantization stands on."""

from __future__ import annotations

from compress.errors import ConfigError
from compress.exported.capture import quiet_torch


def require_torchao() -> None:
    """Import torchao, whose import teaches Inductor the int8 patterns.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        with quiet_torch():
            import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # noqa: F401, PLC0415
    except ImportError as cause:
        raise ConfigError(
            f"quantization needs torchao: pip install 'pytest-compress[quantization]' ({cause})"
        ) from cause
