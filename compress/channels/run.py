"""One run of a network, and what carries labels from one call to the next."""

from __future__ import annotations

import traceback
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.nn.modules.conv import _ConvNd

from compress.calling.inputs import tensors_in
from compress.channels import rules, statistics
from compress.channels.aliases import Write, after_write
from compress.channels.call import Call
from compress.channels.history import Drift, Fault, History, Shape, Step, arguments
from compress.channels.labels import NONE, NOT_A_CHANNEL, WILD, Axis, Ids, Labels, Ledger, Slot, Width
from compress.channels.modes import FunctionWatch, Recorder, memory_of, plain_forward
from compress.channels.notes import Note, Notes
from compress.channels.pointwise import FILLS
from compress.channels.scaling import Factor, Sources
from compress.channels.sketch import Seen, Sketch, line_of, meets
from compress.channels.view import View

_NO_WISHES: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """What a run showed.

    Attributes:
        view: how the network was run.
        slots: every labelled dimension of every parameter and buffer.
        ledger: ties, freezes and choices.
        used: names of the tensors that took part.
        steps: the calls, for comparison with a later run of the network cut smaller.
        output_shapes: the shapes of the output tensors that count, in order, None where they depend on values.
        factors: what could make good a product with a number, by the number of the step.
        faults: where a replay behaved otherwise than the run it follows; empty for a first run.
        drifts: where it differed only in a number that something was multiplied by.
        writes: whether the forward pass writes into parameters.
        reads_values: whether Python read numbers that depend on weights.
        seen: the calls, for comparison with a run at another size; of a first run alone.
        elsewhere: how the network runs on other inputs, where labels go the same ways.
        others: runs in other ways, on the same slots, whose ties and freezes are in this ledger too.
        notes: what could not be run, a sentence each.
    """

    view: View
    slots: Sequence[Slot]
    ledger: Ledger
    used: frozenset[str]
    steps: Sequence[Step]
    output_shapes: Sequence[Shape]
    factors: Mapping[int, Sequence[Factor]] = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    drifts: Sequence[Drift] = ()
    writes: bool = False
    reads_values: bool = False
    seen: Sequence[Seen] = ()
    elsewhere: Sketch | None = None
    others: Sequence[Trace] = ()
    notes: tuple[str, ...] = ()


class Run:
    """The state of one run: labels of every live tensor, and the module at work.

    Args:
        model: what runs.
        view: in which way.
        slots: the labels of its tensors, new ones if None.
        first: the run of the network before it was cut to ``model``, to be compared with.
        wishes: choices to be made otherwise than this run would, by the number of the call.
        alike: a run of the same network at another size, whose choices are repeated.
    """

    def __init__(
        self,
        model: nn.Module,
        view: View,
        *,
        slots: Sequence[Slot] | None,
        first: Trace | None = None,
        wishes: Mapping[int, int] = _NO_WISHES,
        alike: Trace | None = None,
    ) -> None:
        self.model = model
        self.view = view
        before = first or alike
        self.ledger = Ledger(
            replay=None if before is None else before.ledger.choices,
            wishes=wishes,
            folded_before=None if alike is None else alike.ledger.folded,
        )
        self.notes = Notes()
        self.history = History(self.notes, before=None if first is None else first.steps)
        self.state = dict(_state_of(model))
        self.names = {id(tensor): name for name, tensor in self.state.items()}
        self.memory: dict[int, list[str]] = {}
        for name, tensor in self.state.items():
            self.memory.setdefault(memory_of(tensor), []).append(name)
        self.sources = Sources(self.notes, is_own=self.is_own)
        self.used: set[str] = set()
        self.modules: list[tuple[str, object]] = []
        self.watch = FunctionWatch(self.record)
        self.seen: list[Seen] | None = [] if before is None and not view.in_training else None
        self.output_shapes: list[Shape] = []
        self.slots = list(_new_slots(self.state, _kernels(model)) if slots is None else slots)
        self.num_ids = sum(slot.ids.size for slot in self.slots)
        self.owned: dict[str, dict[int, Axis]] = {name: {} for name in self.state}
        self.shared: dict[str, Slot] = {}
        for slot in self.slots:
            self._own(slot)

    def forward(self, lent: Iterable[Tensor] = ()) -> None:
        self.view.set_modes_(self.model)
        for name, module in self.model.named_modules():
            module.register_forward_pre_hook(self._enter(name), with_kwargs=True, prepend=True)
            module.register_forward_hook(self._leave)
        example = self.view.example.copy()
        with plain_forward(self.state.values()), self.watch, Recorder(self.record, {memory_of(one) for one in lent}):
            output = example.lend_to(self.model)
            counted = self.view.counted(output)
        when = "in training" if self.view.in_training else ""
        for name, tensor in counted:
            reason = " ".join(word for word in ("model output", name, when) if word)
            self.sources.put_out(tensor)
            note = self.notes.get(tensor)
            statistics.freeze(self.ledger, () if note is None else note.statistics)
            self.output_shapes.append(None if self.notes.is_ragged(tensor) else tuple(tensor.shape))
            for axis in self.labels(tensor).values():
                self.ledger.freeze_ids(self._let_go(axis.ids), reason)

    def _let_go(self, ids: Ids) -> Ids:
        """``ids`` without those that a run before, of which only some outputs counted, had a say in."""
        if self.view.outputs is None or self.view.known is None:
            return ids
        known = [slot.ids.reshape(-1) for slot in self.slots if slot.tensor in self.view.known]
        return ids[~np.isin(ids, np.concatenate([np.empty(0, np.int64), *known]))]

    def result(self, *, writes: bool = False) -> Trace:
        return Trace(
            view=self.view,
            slots=self.slots,
            ledger=self.ledger,
            used=frozenset(self.used),
            steps=self.history.steps,
            seen=self.seen or (),
            output_shapes=self.output_shapes,
            factors=self.sources.factors(),
            faults=self.history.faults,
            drifts=self.history.drifts,
            writes=writes,
            reads_values=self.history.reads_values,
        )

    def labels(self, tensor: Tensor) -> Labels:
        """The labels of any tensor; a parameter or buffer counts as used from here on."""
        name = self.names.get(id(tensor))
        if name is not None:
            self.used.add(name)
            return self.owned[name]
        note = self.notes.get(tensor)
        return NONE if note is None else note.labels

    def is_own(self, tensor: Tensor) -> bool:
        """Whether a tensor is a parameter or buffer."""
        return id(tensor) in self.names

    def record(self, op: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """Carry the labels through a finished call."""
        bound = arguments(op, args, kwargs)
        operands = list(tensors_in(bound.values()))
        call = Call(
            op=rules.base_name(op),
            args=bound,
            operands=operands,
            is_random=torch.Tag.nondeterministic_seeded in op.tags,
            has_sizes_of_values=torch.Tag.dynamic_output_shape in op.tags or op._schema.name == "torchvision::nms",
            notes=[None if id(tensor) in self.names else self.notes.get(tensor) for tensor in operands],
            outs=list(tensors_in([result])),
            is_own=self.sources.is_own_or_moved,
            ledger=self.ledger,
            lookup=self.labels,
            inputs=lambda: tensors_in([self.modules[-1][1]] if self.modules else []),
            part_ids=self._part_ids,
        )
        self.ledger.module = self.modules[-1][0] if self.modules else ""
        where = f", layer '{self.ledger.module}'" if self.ledger.module else ""
        self.ledger.place = f"{op._schema.name.replace('::', '.')}{where}"
        found = rules.apply(op, call)
        self.ledger.calls += 1
        if self.seen is not None and (line := line_of(op, call.args, call.outs)) is not None:
            self.seen.append(Seen(line, self._labelled(call), _channels(found[0] if found else NONE), meets(op)))
        statistics.follow(call, self.notes)
        self.sources.add(call, found, turn=len(self.history.steps))
        self.history.add(call, found, known=self.is_own, enclosing=self.enclosing)
        if call.operands and all(map(self._is_of_weights, call.operands, call.notes)):
            for out in call.outs:
                self.notes.of(out).of_weights = True
        if call.op in FILLS:
            self.notes.of(call.out).filled_in = self.ledger.module
        elif call.op == "_to_copy" and call.notes[0] is not None and call.notes[0].filled_in is not None:
            self.notes.of(call.out).filled_in = call.notes[0].filled_in
        for out, labels in zip(call.outs, found, strict=False):
            self._store(out, labels, written=op._schema.is_mutable)

    def _is_of_weights(self, tensor: Tensor, note: Note | None) -> bool:
        return self.is_own(tensor) or (note is not None and note.of_weights)

    def _labelled(self, call: Call) -> tuple[frozenset[int], ...]:
        """The dimensions of each operand that hold channels."""
        own = [self.owned.get(self.names.get(id(tensor), ""), NONE) for tensor in call.operands]
        notes = zip(own, call.notes, strict=True)
        return tuple(_channels(labels if note is None else note.labels) for labels, note in notes)

    def enclosing(self) -> list[list[Tensor]]:
        """The inputs of each module at work, the innermost first."""
        return [list(tensors_in([inputs])) for _, inputs in reversed(self.modules)]

    def at_work(self, error: Exception) -> list[list[Tensor]]:
        """The tensors of each module whose code raised ``error``, the innermost first: called or not, it is at work."""
        found = []
        for frame, _ in traceback.walk_tb(error.__traceback__):
            module = frame.f_locals.get("self")
            if isinstance(module, nn.Module) and frame.f_code.co_filename != nn.modules.module.__file__:
                found.append([*module.parameters(recurse=False), *module.buffers(recurse=False)])
        return found[::-1]

    def _store(self, tensor: Tensor, labels: Labels, *, written: bool) -> None:
        if written:
            self._spread(Write(tensor, self.labels(tensor), labels))
        if id(tensor) not in self.names and (labels or self.notes.get(tensor) is not None):
            self.notes.of(tensor).labels = labels

    def _spread(self, write: Write) -> None:
        memory = memory_of(write.tensor)
        for name in self.memory.get(memory, ()):
            self._freeze_tensor(name, f"written by the forward pass ({self.ledger.place})")
        for other in self.notes.tensors():
            if other is not write.tensor and memory_of(other) == memory:
                note = self.notes.of(other)
                note.labels = after_write(self.ledger, other, note.labels, write)
                self.history.copy_taint(write.tensor, other)

    def _own(self, slot: Slot) -> None:
        if slot.ids.ndim > 1:
            self.shared[slot.tensor] = slot
            self.owned[slot.tensor].pop(slot.dim, None)
        else:
            self.owned[slot.tensor][slot.dim] = Axis(slot.ids, zero=True)

    def _part_ids(self, weight: Tensor, parts: int) -> Ids | None:
        name = self.names.get(id(weight))
        if name is None:
            return None
        if name not in self.shared and self.history.before is not None:
            return None
        if name not in self.shared:
            axis = self.owned[name].get(1)
            if axis is not None:
                self.ledger.freeze_ids(axis.ids, NOT_A_CHANNEL)
            shape = (parts, weight.shape[1])
            ids = np.arange(self.num_ids, self.num_ids + parts * shape[1]).reshape(shape)
            self.num_ids += ids.size
            self.slots.append(Slot(tensor=name, dim=1, ids=ids))
            self._own(self.slots[-1])
        slot = self.shared[name]
        return slot.ids if len(slot.ids) == parts else None

    def _freeze_tensor(self, name: str, reason: str) -> None:
        for axis in self.owned.get(name, {}).values():
            self.ledger.freeze_ids(axis.ids, reason)

    def _enter(self, name: str) -> Any:
        def hook(_: nn.Module, args: object, kwargs: object) -> None:
            if self.history.before is None:
                for tensor in tensors_in([args, kwargs]):
                    axes = [axis for axis in self.labels(tensor).values() if not axis.parts]
                    self.ledger.entered.extend(Width(name, len(axis.ids), axis.ids) for axis in axes)
            self.modules.append((name, (args, kwargs)))

        return hook

    def _leave(self, *_: object) -> None:
        self.modules.pop()


def _state_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _kernels(model: nn.Module) -> set[int]:
    """The identities of convolutions' weights, or of what those are computed from: kernels over space."""
    convolutions = [module for module in model.modules() if isinstance(module, _ConvNd)]
    return {id(tensor) for module in convolutions for tensor in (*module.parameters(), *module.buffers())}


def _new_slots(state: Mapping[str, Tensor], kernels: Container[int]) -> Iterator[Slot]:
    """Ids for every dimension that could shrink; whole numbers count or point, and are no channels."""
    count = 0
    for name, tensor in state.items():
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        for dim, size in enumerate(tensor.shape[:2] if id(tensor) in kernels else tensor.shape):
            if size > 1:
                yield Slot(tensor=name, dim=dim, ids=np.arange(count, count + size))
                count += size


def _channels(labels: Labels) -> frozenset[int]:
    """The dimensions that hold channels, and are not the same all along."""
    return frozenset(dim for dim, axis in labels.items() if axis.ids.size and axis.ids.max() > WILD)
