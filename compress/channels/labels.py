"""Channel labels, and the ledger in which one run of the network writes down what it learned about them.

A tensor's labels map a dimension to an :class:`Axis`: one id for each index along it. Parameters own their ids,
activations inherit them. A dimension without an entry belongs to the data (batch, space, time) and never shrinks.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

# Two ids that are none. FIXED is a position that no cut may move: what meets it stays. WILD is a position of a tensor
# that is the same all along the dimension (an expanded one, a fill of zeros): it fits whatever is left of its partner.
FIXED = -1
WILD = -2

_LAST = 4  # products to be remembered

NOT_A_CHANNEL = "not a channel dimension"


# A choice, by the path of the module, the number of the call in it, and the number of the choice in that: the same
# whatever the widths and sizes.
Place = tuple[str, int, int]


class Axis(NamedTuple):
    """The labels along one dimension.

    Attributes:
        ids: ``[size]``, an id, FIXED or WILD for each index; ``[*parts, size]`` where they differ along other
            dimensions too, as the heads of an attention do.
        zero: whether the positions a cut removes hold exact zeros once their weights are zero. Only then may a sum
            run over the dimension: a sigmoid of a removed channel is 0.5, and a sum that lost it is another sum.
        parts: those other dimensions, ascending. They never shrink; this one shrinks equally in each of them.
    """

    ids: Ids
    zero: bool
    parts: tuple[int, ...] = ()

    @property
    def rows(self) -> Ids:
        """``[number of parts, size]``."""
        # The number is given, for of no ids at all it could not be inferred.
        return self.ids.reshape(math.prod(self.ids.shape[:-1]), self.ids.shape[-1])


Labels = Mapping[int, Axis]
NONE: Labels = {}


def moved(labels: Labels, order: Sequence[int | None]) -> dict[int, Axis]:
    """``labels`` after their dimensions were put into ``order``; None stands for a new one."""
    places = {old: new for new, old in enumerate(order) if old is not None}
    return {places[old]: _placed(axis, places) for old, axis in labels.items() if old in places}


def _placed(axis: Axis, places: Mapping[int, int]) -> Axis:
    if not axis.parts:
        return axis
    parts = [places[part] for part in axis.parts]
    order = sorted(range(len(parts)), key=parts.__getitem__)
    return Axis(axis.ids.transpose(*order, -1), axis.zero, tuple(parts[at] for at in order))


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """One dimension of one parameter or buffer, the place where ids come from.

    Attributes:
        tensor: the tensor's name in the model's state.
        dim: the dimension.
        ids: ``[size]``; or ``[parts, size]`` for the dimension that the parts of a grouped convolution share, each
            part of dimension 0 with channels of its own.
    """

    tensor: str
    dim: int
    ids: Ids


class Tie(NamedTuple):
    """Two vectors of ids that stand or fall together, position by position, and the operation that said so."""

    first: Ids
    second: Ids
    place: str


class Freeze(NamedTuple):
    """Ids that must stay, and why."""

    ids: Ids
    reason: str


class Parts(NamedTuple):
    """A dimension whose ``num_parts`` equal parts must keep equally many positions each."""

    ids: Ids
    num_parts: int


class Alignment(NamedTuple):
    """A dimension of which as many positions must stay as are a multiple of something."""

    ids: Ids
    multiple: int


class Binding(NamedTuple):
    """A dimension that may be as wide as another because Python code takes the one width for the other.

    Attributes:
        ids: those of the wider one, a whole multiple of the other.
        to: those of the other.
        module: the path of the module at work.
    """

    ids: Ids
    to: Ids
    module: str


class Split(NamedTuple):
    """A dimension split into parts.

    Attributes:
        call: the number of the call, whose choice was which of the new dimensions shrinks.
        axis: that one.
        heads: the dimension before it, which shrinks instead where whole heads go.
    """

    call: int
    axis: Axis
    heads: int


class Width(NamedTuple):
    """A size that a module of the model gave to an operation, and the ids which it is the number of."""

    module: str
    size: int
    ids: Ids


@dataclass(kw_only=True)
class Ledger:
    """What one run of the network showed. Nothing is resolved here: ties are pairs, to be joined once at the end.

    Attributes:
        replay: choices of an earlier run, to be repeated; None where this run chooses.
        wishes: choices to be made otherwise than this run would, by the number of the call.
        folded: how channels were taken apart by each reshape: factors of their number, by the module and the number of
            the call in it.
        takes_apart: whether any reshape took channels apart, or merged them with something else.
        folded_before: the same of a run of the same network at another size, None if there was none.
        calls: how many calls came before the one at work.
        place: the operation and module at work, for reasons.
        module: the path of that module.
        ties: ids that stand or fall together.
        freezes: ids that must stay.
        parts: dimensions that must keep equally many positions in each part.
        pieces: what slices and splits took, in order: after a cut they must take what is left of the same.
        alignments: dimensions that a kernel takes only in multiples of some width.
        outputs: ids of output dimensions of weights: the slices which produce the channel.
        choices: what this run chose where more than one way was open.
        asked: how many calls at which choices may be made each module made so far.
        num_chosen: how many choices the call at work has made.
        contracted: ids of the last dimensions that products were summed over.
        attended: ids of the factors of batched products, whose parts are heads.
        attending: the modules that made those.
        bindings: widths that attention code may take one for the other.
        widths: sizes written in Python.
        entered: how wide what each module was called on is: code may compare that with a number of its own.
        splits: dimensions split into parts.
    """

    replay: Mapping[Place, int] | None = None
    wishes: Mapping[int, int] = field(default_factory=dict)
    folded: dict[tuple[str, int, int], Sequence[int]] = field(default_factory=dict)
    takes_apart: bool = False
    folded_before: Mapping[tuple[str, int, int], Sequence[int]] | None = None
    calls: int = 0
    place: str = ""
    module: str = ""
    ties: list[Tie] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    parts: list[Parts] = field(default_factory=list)
    pieces: list[Ids] = field(default_factory=list)
    alignments: list[Alignment] = field(default_factory=list)
    outputs: list[Ids] = field(default_factory=list)
    choices: dict[Place, int] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    num_chosen: int = 0
    contracted: deque[Ids] = field(default_factory=lambda: deque(maxlen=_LAST))
    attended: list[Ids] = field(default_factory=list)
    attending: set[str] = field(default_factory=set)
    bindings: list[Binding] = field(default_factory=list)
    widths: list[Width] = field(default_factory=list)
    entered: list[Width] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)

    def freeze(self, axis: Axis | None, why: str) -> None:
        """Keep every channel of ``axis``, because of ``why`` at the operation now at work."""
        if axis is not None:
            self.freeze_ids(axis.ids, f"{why} ({self.place})")

    def freeze_ids(self, ids: Ids, reason: str) -> None:
        """Keep ``ids``, for ``reason`` as it stands."""
        ids = ids[ids >= 0]
        if ids.size:
            self.freezes.append(Freeze(ids, reason))

    def tie(self, first: Axis | None, second: Axis | None) -> None:
        """Remove position ``i`` of both or of neither; None is a dimension of fixed positions."""
        if first is None or second is None:
            self.freeze(second if first is None else first, "meets values without channel labels")
            return
        a, b = first.ids, second.ids
        if a is b:
            return
        if a.shape != b.shape:
            a, b = np.broadcast_arrays(a, b)
        both = (a >= 0) & (b >= 0)
        whole = bool(both.all())
        self.ties.append(Tie(a.reshape(-1) if whole else a[both], b.reshape(-1) if whole else b[both], self.place))
        if not whole:
            self.freeze(Axis(a[b == FIXED], first.zero), "meets values without channel labels")
            self.freeze(Axis(b[a == FIXED], second.zero), "meets values without channel labels")

    def are_tied(self, first: Ids, second: Ids) -> bool:
        """Whether position ``i`` of both is known to stand or fall together, for all ``i``."""
        if np.array_equal(first, second):
            return True
        tied: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for tie in self.ties:
            one, other = tie.first.tobytes(), tie.second.tobytes()
            tied[one].append(other)
            tied[other].append(one)
        wanted, reached = second.tobytes(), {first.tobytes()}
        ahead = deque(reached)
        while ahead and wanted not in reached:
            new = [one for one in tied[ahead.popleft()] if one not in reached]
            reached.update(new)
            ahead.extend(new)
        return wanted in reached

    def merge(self, first: Axis, second: Axis) -> Ids:
        """Tie two dimensions that become one, and return its ids."""
        self.tie(first, second)
        a, b = first.ids, second.ids
        return a if a.ndim >= b.ndim and (a >= 0).all() else np.where(a >= 0, a, np.maximum(a, b))

    def sum_over(self, *axes: Axis | None) -> None:
        """A product is summed along these tied dimensions: right after a cut only if a factor was zero there."""
        present = [axis for axis in axes if axis is not None]
        self.contracted.append(np.concatenate([axis.ids.reshape(-1) for axis in present] or [np.empty(0, np.int64)]))
        if not any(axis.zero for axis in present):
            for axis in present:
                self.freeze(axis, "a sum over channels that need not be zero when removed")

    def balance(self, axis: Axis | None, num_parts: int) -> None:
        """Ask that each of ``num_parts`` equal parts of a dimension keep equally many positions."""
        if axis is None or num_parts == 1:
            return
        if (axis.ids < 0).any():
            self.freeze(axis, "equal parts, of which some positions are fixed")
        else:
            self.parts.append(Parts(axis.ids.reshape(-1), num_parts))

    def width(self, axis: Axis) -> None:
        """Note that the operation at work was told how wide ``axis`` shall be."""
        self.widths.append(Width(self.module, axis.ids.shape[-1], axis.rows[0]))

    def ask(self) -> None:
        """A call begins at which choices may be made."""
        self.asked[self.module] += 1
        self.num_chosen = 0

    def folds(self, axis: Axis, sizes: Sequence[int]) -> bool:
        """Whether ``axis`` is taken apart by factors ``sizes`` at another size of the input too, as far as known.

        There the same module may handle its tensors in another order, as a sum of products does: only the same
        channels are compared.
        """
        place = (self.module, self.asked[self.module], int(axis.ids.flat[0]))
        self.folded[place] = sizes
        return self.folded_before is None or self.folded_before.get(place, sizes) == sizes

    def choose(self, best: int) -> int:
        """``best``, or what is wished, or what an earlier run chose at this point."""
        place = (self.module, self.asked[self.module], self.num_chosen)
        self.num_chosen += 1
        choice = self.wishes.get(self.calls, best)
        if self.replay is not None:
            choice = self.replay.get(place, choice)
        self.choices[place] = choice
        return choice
