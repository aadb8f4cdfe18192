"""What a run knows of each live tensor that is not the model's own: forgotten as soon as the tensor dies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from compress.channels.labels import NONE, Labels


@dataclass(slots=True, eq=False)
class Note:
    """What is known of one tensor.

    Attributes:
        labels: of its dimensions.
        tainted: whether it depends on weights.
        changed: whether it was made of constants, and came out otherwise than in the run before.
        own: whether it is a parameter or buffer, moved.
        of_weights: whether it was made of parameters and buffers alone.
        ragged: whether its sizes depend on values.
        unset: whether it was made of memory as it was found, and that was not overwritten since.
        growth: the layers' outputs that it is multiplied with.
        statistics: those of channels that it was made of.
        filled_in: the path of the module that filled it with one value; None if it was not.
    """

    labels: Labels = field(default_factory=lambda: NONE)
    tainted: bool = False
    changed: bool = False
    own: bool = False
    of_weights: bool = False
    ragged: bool = False
    unset: bool = False
    growth: Sequence[Any] = ()
    statistics: Sequence[Any] = ()
    filled_in: str | None = None


class Notes:
    """One note for each live tensor."""

    def __init__(self) -> None:
        # A tensor's Python object may die and come back; torch's own dictionary knows, and one is quicker than five.
        self._notes: Any = WeakTensorKeyDictionary()

    def get(self, tensor: Tensor) -> Note | None:
        """The note on ``tensor``, if there is one."""
        found: Note | None = self._notes.get(tensor)
        return found

    def of(self, tensor: Tensor) -> Note:
        """The note on ``tensor``, a new one if there was none."""
        found = self.get(tensor)
        if found is None:
            found = self._notes[tensor] = Note()
        return found

    def is_ragged(self, tensor: Tensor) -> bool:
        """Whether the sizes of ``tensor`` depend on values."""
        note = self.get(tensor)
        return note is not None and note.ragged

    def tensors(self) -> Iterator[Tensor]:
        """All tensors noted."""
        return iter(list(self._notes))
