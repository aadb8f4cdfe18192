"""A forward pass as a coroutine: it asks for one ATen operation after another, and waits for what each puts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, Self

import torch
from torch import nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from compress.calling.inputs import BATCH, Inputs
from compress.errors import CompressError, ModelError, first_line

_BELOW = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)


class Operation(NamedTuple):
    """One ATen operation that a forward pass asks for."""

    function: OpOverload
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    def result(self) -> Any:
        """What it puts out."""
        # As below the model's own call, which has gone past autograd already: a view must not be made one twice.
        with torch.inference_mode(), torch._C._ExcludeDispatchKeyGuard(_BELOW):
            return self.function(*self.args, **self.kwargs)


class _Answer(NamedTuple):
    """What an operation put out, or how it failed."""

    result: Any = None
    failure: BaseException | None = None


class _AbandonedError(BaseException):
    """The rest of a forward pass is not wanted. No model catches it by mistake, for it is no Exception."""


class ForwardPass:
    """A model's forward pass on one batch, which computes nothing itself.

    The model's own code runs in a thread of its own, which waits at every operation until it is given the result. So
    the passes on several batches, and those of two models, can be stopped at the same place, all of their live
    activations kept. Operations that are made of others, such as a linear layer, arrive in one piece: that is how torch
    dispatches in inference mode.

    A context manager; leaving it ends the thread.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        self.model = model
        # A forward pass may write into its inputs. Copied here, since each operation within the pass is asked for.
        self.inputs = inputs.copy()
        self.requests: SimpleQueue[Operation | BaseException | None] = SimpleQueue()
        self.answers: SimpleQueue[_Answer] = SimpleQueue()
        self.abandoned = False
        self.pending: Operation | None = None
        self.computed: _Answer | None = None
        self.thread = Thread(target=self._run, name="forward pass", daemon=True)
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandoned = True
        self.answers.put(_Answer(failure=_AbandonedError()))
        self.thread.join()

    def next(self) -> Operation | None:
        """The operation that the pass asks for next, None once it is done; what it asked for before is computed.

        Raises:
            ModelError: if the forward pass fails.
        """
        if self.pending is not None:
            self.answers.put(self._answer(self.pending))
        self.pending = self.computed = None
        request = self.requests.get()
        if isinstance(request, CompressError):
            raise request
        if isinstance(request, BaseException):
            raise ModelError(f"the forward pass on {BATCH} failed: {first_line(request)}") from request
        self.pending = request
        return request

    def compute(self) -> Any:
        """What the pending operation puts out, which :meth:`next` then need not compute again."""
        if self.pending is not None and self.computed is None:
            self.computed = _Answer(result=self.pending.result())
        return None if self.computed is None else self.computed.result

    def _answer(self, pending: Operation) -> _Answer:
        if self.computed is not None:
            return self.computed
        try:
            return _Answer(result=pending.result())
        except Exception as cause:  # noqa: BLE001 - the model's to handle, as it would be outside
            return _Answer(failure=cause)

    def _run(self) -> None:
        try:
            with torch.inference_mode(), _Relay(self):
                self.inputs.lend_to(self.model)
        except _AbandonedError:
            return
        except BaseException as cause:  # noqa: BLE001 - raised where the pass is waited for
            self.requests.put(cause)
        else:
            self.requests.put(None)


class _Relay(TorchDispatchMode):
    """Has every operation computed by whoever drives the pass."""

    def __init__(self, owner: ForwardPass) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.owner = owner

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.owner.abandoned:
            raise _AbandonedError
        self.owner.requests.put(Operation(func, args, kwargs or {}))
        answer = self.owner.answers.get()
        if answer.failure is not None:
            raise answer.failure
        return answer.result
