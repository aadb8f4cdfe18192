"""Data of any task: batches of inputs and targets, as whatever loads them gives them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from compress.calling.inputs import inputs_of
from compress.data.splits import Split, generator, stratified
from compress.errors import ConfigError, DataError

Pair = tuple[Any, Any]


@dataclass(frozen=True, kw_only=True)
class _Survey:
    """What one pass over the batches tells."""

    num_examples: int
    num_batches: int
    in_order: str
    in_any_order: str


@dataclass(frozen=True, kw_only=True, eq=False)
class LoaderSplit:
    """Batches of inputs and targets of any structure; whole batches are what is drawn, set apart or shared out.

    Attributes:
        loader: can be gone over again, as a list or a DataLoader can; gives pairs (inputs, targets), or inputs
            alone. The batches of a list are shuffled in training, a loader shuffles as it will.
        name: what messages call it.
    """

    loader: Iterable[Any]
    name: str = "data"

    def __len__(self) -> int:
        return self._survey.num_examples

    @property
    def num_batches(self) -> int:
        """How many batches one pass gives."""
        return self._survey.num_batches

    @property
    def sha256(self) -> str:
        """Of all examples in their order, in hex."""
        return self._survey.in_order

    @property
    def sha256_in_any_order(self) -> str:
        """Of all examples, whatever order a loader that shuffles gives them in."""
        return self._survey.in_any_order

    def batches(
        self, batch_size: int = 0, *, training: bool = False, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> Iterator[Pair]:
        """The batches, of whatever size they come in: ``batch_size`` is the loader's own; see :class:`Split`."""
        del batch_size
        order: Iterable[Any] = self.loader
        if training and isinstance(order, Sequence):
            order = [order[i] for i in torch.randperm(len(order), generator=generator(seed)).tolist()]
        # Every process makes as many steps, or those that have more would wait for ever.
        last = self.num_batches - self.num_batches % world_size if training and world_size > 1 else None
        for number, batch in enumerate(order):
            if last is not None and number >= last:
                return
            if number % world_size == rank:
                yield _pair(batch, self.name)

    def apart(self, count: int, seed: int) -> tuple[LoaderSplit, LoaderSplit]:
        """All but some batches of ``count`` examples or some more, and those; both are kept in memory."""
        batches = [_pair(batch, self.name) for batch in self.loader]
        chosen: set[int] = set()
        held = 0
        for number in torch.randperm(len(batches), generator=generator(seed)).tolist():
            if held >= count:
                break
            chosen.add(number)
            held += count_examples(batches[number][0])
        rest = [batch for number, batch in enumerate(batches) if number not in chosen]
        return (
            LoaderSplit(loader=rest, name=self.name),
            LoaderSplit(loader=[batches[number] for number in sorted(chosen)], name=self.name),
        )

    @cached_property
    def _survey(self) -> _Survey:
        ordered, total, examples, batches = hashlib.sha256(), 0, 0, 0
        # To count what a loader gives must not change what it gives next.
        with torch.random.fork_rng(devices=[]):
            for batch in self.loader:
                inputs, targets = _pair(batch, self.name)
                count = count_examples(inputs)
                for digest in _digests(inputs, targets, count):
                    ordered.update(digest)
                    total = (total + int.from_bytes(digest, "little")) % 2**256
                examples, batches = examples + count, batches + 1
        if not examples:
            raise DataError(f"a split must hold at least one example, got none ({self.name})")
        return _Survey(
            num_examples=examples,
            num_batches=batches,
            in_order=ordered.hexdigest(),
            in_any_order=hashlib.sha256(total.to_bytes(32, "little")).hexdigest(),
        )


AnySplit = Split | LoaderSplit
"""Labelled images, or batches of any task."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoaderData:
    """A training and a test split of any task, and what identifies them; see :func:`from_loaders`."""

    name: str
    train: LoaderSplit
    test: LoaderSplit
    known_sha256: str = ""
    known_train_sha256: str = ""

    @property
    def sha256(self) -> str:
        """Of the test split, in hex: two figures compare only under the same one."""
        return self.known_sha256 or self.test.sha256

    @property
    def train_sha256(self) -> str:
        """Of the training split, in hex: what was trained on another one is another model."""
        return self.known_train_sha256 or self.train.sha256_in_any_order

    def holdout(self, fraction: float, seed: int = 0) -> tuple[LoaderSplit, LoaderSplit]:
        """The training split in two, by whole batches: (what is left to train on, validation examples).

        Raises:
            ConfigError: if ``fraction`` is not in (0, 1), or leaves one of the two parts empty.
        """
        if not 0 < fraction < 1:
            raise ConfigError(f"the fraction held out must be in (0, 1), got {fraction} ({self.name})")
        rest, chosen = self.train.apart(max(1, round(fraction * len(self.train))), seed)
        if not list(rest.loader):
            raise ConfigError(
                f"the fraction held out must leave batches on both sides, got {fraction} of"
                f" {self.train.num_batches} batches ({self.name})"
            )
        return rest, chosen


def from_loaders(
    name: str, *, train: Iterable[Any], test: Iterable[Any], sha256: str = "", train_sha256: str = ""
) -> LoaderData:
    """Batches of any task as a data set.

    Args:
        name: what a report calls it.
        train, test: iterables that can be gone over again of pairs (inputs, targets), or of inputs alone, tensors or
            mappings, for what needs no targets (a pair of inputs and None says the same, whatever the inputs); the test
            batches come in the same order each time.
        sha256, train_sha256: what identifies both; left out, they are found by going over all batches.

    Raises:
        DataError: if one is an iterator, which can be gone over once.
    """
    for place, loader in (("train", train), ("test", test)):
        if isinstance(loader, Iterator) or not isinstance(loader, Iterable):
            raise DataError(
                f"batches must be an iterable that can be gone over again, such as a list or a DataLoader, got"
                f" {type(loader).__name__} ({name}, {place})"
            )
    return LoaderData(
        name=name,
        train=LoaderSplit(loader=train, name=f"{name}, train"),
        test=LoaderSplit(loader=test, name=f"{name}, test"),
        known_sha256=sha256,
        known_train_sha256=train_sha256,
    )


def drawn(split: AnySplit, count: int, seed: int) -> AnySplit:
    """``count`` examples at random, or all where there are fewer; of a loader whole batches of as many or some more."""
    if isinstance(split, LoaderSplit):
        return split.apart(count, seed)[1]
    order = torch.randperm(len(split), generator=generator(seed))
    return split.subset(order[:count])


def apart(split: AnySplit, count: int, seed: int) -> tuple[AnySplit, AnySplit]:
    """All but ``count`` examples, and those: at random and in proportion to the classes, of a loader whole batches."""
    if isinstance(split, LoaderSplit):
        return split.apart(count, seed)
    rest, chosen = stratified(split.labels, count, seed)
    return split.subset(rest), split.subset(chosen)


def count_examples(inputs: Any) -> int:
    """How many examples a batch's inputs are: the first dimension of their first tensor.

    Raises:
        DataError: if they hold no such tensor.
    """
    first = next(iter(inputs_of(inputs, "a batch").tensors), None)
    if first is None or first.ndim == 0:
        raise DataError("a batch must hold a tensor whose first dimension is that of the examples")
    return len(first)


def _pair(batch: Any, name: str) -> Pair:
    """Inputs and targets; of a batch of inputs alone None for these."""
    if isinstance(batch, (Tensor, Mapping)):
        return batch, None
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:  # noqa: PLR2004 - inputs and targets
        raise DataError(
            "a batch must be a pair (inputs, targets), or inputs alone: a tensor or a mapping, got"
            f" {type(batch).__name__} ({name})"
        )
    return batch[0], batch[1]


def _digests(inputs: Any, targets: Any, count: int) -> Iterator[bytes]:
    """Of each example; of the whole batch where its parts cannot be told apart."""
    arguments = inputs_of(inputs, "a batch")
    leaves = tree_leaves([arguments.args, dict(arguments.kwargs)])
    if targets is None:
        parts = leaves
    else:
        parts = [*leaves, targets] if _is_rows(targets, count) else [*leaves, *tree_leaves(targets)]
    if all(_is_rows(part, count) for part in parts):
        for number in range(count):
            yield hashlib.sha256(b"".join(_bytes(part[number]) for part in parts)).digest()
    else:
        yield hashlib.sha256(_bytes([leaves, targets])).digest()


def _is_rows(value: Any, count: int) -> bool:
    return (
        isinstance(value, (Tensor, list, tuple))
        and (not isinstance(value, Tensor) or value.ndim > 0)
        and (len(value) == count)
    )


def _bytes(value: Any) -> bytes:
    """All that a value holds."""
    content = []
    for leaf in tree_leaves(value):
        if isinstance(leaf, Tensor):
            flat = leaf.detach().cpu().contiguous()
            content.append(
                f"{flat.dtype} {list(flat.shape)}".encode() + flat.view(-1).view(torch.uint8).numpy().tobytes()
            )
        else:
            content.append(repr(leaf).encode())
    return b"\0".join(content)
