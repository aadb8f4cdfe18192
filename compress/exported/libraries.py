"""The libraries whose operators a graph may hold."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from compress.errors import ConfigError
from compress.exported.capture import quiet_torch


def require_libraries(operators: Iterable[str]) -> None:
    """Import what defines the ``operators``, by their names in a file: torch knows them only from then on.

    Raises:
        ConfigError: if it is not installed.
    """
    namespaces = {operator.split(".")[2] for operator in operators if operator.startswith("torch.ops.")}
    if namespaces & {"quantized_decomposed", "torchao"}:
        require_torchao()
    if "torchvision" in namespaces:
        import_module("torchvision")


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
            f"an int8 model needs torchao: pip install 'pytest-compress[quantization]' ({cause})"
        ) from cause
