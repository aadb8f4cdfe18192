"""Random numbers: whatever a network draws while it is looked at, the caller's generators stay as they were."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator

import numpy as np
import torch


@contextlib.contextmanager
def own_random_state(devices: Iterable[torch.device]) -> Iterator[None]:
    """Leave the random state of Python, NumPy, and of torch on the CPU and on ``devices`` as it is.

    What is drawn within depends on that state: the same again, where nothing was drawn in between.
    """
    cuda = [device for device in dict.fromkeys(devices) if device.type == "cuda"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(cuda))
        # A network may ask other generators too.
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 - the one that networks ask
        yield
