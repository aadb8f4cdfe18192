"""Which machine this is, in the words by which figures of the same class of device are found again."""

from __future__ import annotations

import platform

import torch

from compress.results import Environment
from compress.system.cpu import cpu_class, cpu_name


def environment(threads: int) -> Environment:
    """This process's machine and versions, for CPU figures taken with ``threads`` threads."""
    has_cuda = torch.cuda.is_available()
    return Environment(
        python=platform.python_version(),
        torch=torch.__version__,
        cpu=cpu_name(),
        cpu_class=cpu_class(threads),
        cuda_class=cuda_class() if has_cuda else None,
        gpu=torch.cuda.get_device_name() if has_cuda else None,
    )


def cuda_class() -> str:
    """``cuda-sm90``: the compute capability of the current CUDA device."""
    major, minor = torch.cuda.get_device_capability()
    return f"cuda-sm{major}{minor}"
