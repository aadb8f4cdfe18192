"""Compiling by Inductor, with the weights frozen into the code: only so do int8 and layout rewrites happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compress.calling.batches import batch_size
from compress.calling.inputs import Inputs
from compress.exported.capture import quiet_torch

Call = Callable[..., Any]
_NO_LIMIT = 2**31 - 1


def compiled(module: nn.Module, *, any_batch: bool = False) -> Call:
    """``module``, compiled on its first call, and again for inputs that the code at hand does not fit.

    Args:
        module: in eval mode.
        any_batch: compile once for single inputs and once for batches of any size, not for each size.
    """
    # Seconds of imports, which nobody who compiles nothing should wait for.
    from torch._dynamo import config as dynamo  # noqa: PLC0415
    from torch._inductor import config as inductor  # noqa: PLC0415

    run: Call = torch.compile(module, dynamic=None if any_batch else False)
    seen = set()

    def call(*args: Any, **kwargs: Any) -> Any:
        # One kind of tensor in one mode: each further one would be compiled for anew.
        with torch.inference_mode():
            inputs = Inputs(args=args, kwargs=kwargs)
            tensors = inputs.tensors
            key = (tuple(map(_kind, tensors)), torch.get_num_threads())
            if key in seen:
                return run(*args, **kwargs)
            size = batch_size(inputs)
            for tensor in tensors:
                if any_batch and size > 1 and tensor.ndim and len(tensor) == size:
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
            # torch.compile(options={"freezing": True}) comes too late for the parameters to be taken as constants.
            freezing = inductor.patch({"freezing": True, "triton.cudagraphs": any(one.is_cuda for one in tensors)})
            # Beyond its limit torch would run the graph as it is, without a word: int8 imitated in float.
            with (
                freezing,
                dynamo.patch(recompile_limit=_NO_LIMIT, accumulated_recompile_limit=_NO_LIMIT),
                quiet_torch(),
            ):
                outputs = run(*args, **kwargs)
            seen.add(key)
            return outputs

    return call


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.is_inference()
