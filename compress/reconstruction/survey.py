"""Which products with weights a forward pass runs, in order, and which of the weights can be fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn

from compress.calling.inputs import Inputs, tensors_in
from compress.channels.modes import memory_of
from compress.errors import ModelError
from compress.reconstruction.passes import ForwardPass, Operation
from compress.reconstruction.products import Product, product_of


class Site(NamedTuple):
    """A weight as products read it: a parameter, or a part of one.

    Attributes:
        tensor: the parameter's name.
        offset, shape, stride: where in its memory the weight lies.
    """

    tensor: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def end(self) -> int:
        """Behind its last element."""
        return self.offset + 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))

    def part_of(self, tensor: Tensor) -> Tensor:
        """The part that lies there, of a tensor laid out in memory as the parameter is."""
        return tensor.as_strided(self.shape, self.stride, self.offset)


class Parameters:
    """A model's parameters, known by their memory."""

    def __init__(self, model: nn.Module) -> None:
        self.tensors = dict(model.named_parameters())
        self.names = {memory_of(parameter): name for name, parameter in self.tensors.items()}

    def name_of(self, tensor: Tensor) -> str | None:
        """The parameter that ``tensor`` is, or is a view of."""
        return self.names.get(memory_of(tensor))

    def product(self, operation: Operation) -> Product | None:
        """``operation`` as a product with one of these parameters."""
        return product_of(operation, lambda tensor: self.name_of(tensor) is not None)

    def site(self, product: Product) -> Site:
        """Where a product's weight lies."""
        weight = product.weight
        name = self.names[memory_of(weight)]
        offset = int(weight.storage_offset() - self.tensors[name].storage_offset())
        return Site(name, offset, tuple(weight.shape), weight.stride())


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """What one forward pass showed.

    Attributes:
        calls: the weight of each product, in the order in which they run.
        readers: for each parameter what else reads its values.
        biases: for each bias the weights that it is added to products of.
    """

    calls: list[Site] = field(default_factory=list)
    readers: dict[str, set[str]] = field(default_factory=dict)
    biases: dict[str, set[Site]] = field(default_factory=dict)

    def obstacle(self, site: Site) -> str:
        """Why a weight must stay as it is; "" if it need not."""
        if others := self.readers.get(site.tensor):
            return f"its weight is also read by {', '.join(sorted(others))}"
        for other in self.calls:
            if other != site and other.tensor == site.tensor and site.offset < other.end and other.offset < site.end:
                return "its weight is read in two ways"
        return ""

    def has_own_bias(self, name: str | None) -> bool:
        """Whether the bias of that name is of one weight alone."""
        return name is not None and len(self.biases[name]) == 1 and name not in self.readers


def surveyed(model: nn.Module, inputs: Inputs) -> Survey:
    """Run ``model`` once and see which products it asks for.

    Raises:
        ModelError: if the forward pass fails.
    """
    parameters, survey = Parameters(model), Survey()
    with ForwardPass(model, inputs) as forward:
        while (operation := forward.next()) is not None:
            product = parameters.product(operation)
            own: tuple[Tensor | None, ...] = ()
            if product is not None:
                site = parameters.site(product)
                survey.calls.append(site)
                own = (product.weight, product.bias)
                if product.bias is not None:
                    survey.biases.setdefault(parameters.names[memory_of(product.bias)], set()).add(site)
            for tensor in _read(operation):
                name = parameters.name_of(tensor)
                if name is not None and not any(tensor is one for one in own):
                    survey.readers.setdefault(name, set()).add(operation.function.overloadpacket.__name__)
    return survey


def matched(
    dense: Sequence[Site], small: Sequence[Site], counterpart: Callable[[str], str | None]
) -> list[tuple[Site | None, Site]]:
    """For each product of the smaller model the weight that the dense one reads there, None where it has no such.

    Args:
        dense, small: what each reads, in order.
        counterpart: the parameter of the dense model that one of the smaller one stands for, None if there is none.

    Raises:
        ModelError: if the two do not run the same layers in the same order.
    """
    left, pairs = list(dense), list[tuple[Site | None, Site]]()
    for site in small:
        name = counterpart(site.tensor)
        theirs = left.pop(0) if name is not None and left else None
        if name is not None and (theirs is None or theirs.tensor != name):
            raise _unlike(len(dense) - len(left), "nothing more" if theirs is None else theirs.tensor, site.tensor)
        pairs.append((theirs, site))
    if left:
        raise _unlike(len(dense) - len(left) + 1, left[0].tensor, "nothing more")
    return pairs


def _unlike(number: int, theirs: str, ours: str) -> ModelError:
    return ModelError(
        f"dense must be the model that the smaller one was made of: product {number} of its forward pass is with"
        f" {theirs}, of the smaller one's with {ours}"
    )


def _read(operation: Operation) -> Iterator[Tensor]:
    """The tensors whose values an operation reads or writes; those that it only makes a view of are left out."""
    arguments = operation.function._schema.arguments
    given = dict(zip((argument.name for argument in arguments), operation.args, strict=False)) | dict(operation.kwargs)
    for argument in arguments:
        is_viewed = argument.alias_info is not None and not argument.alias_info.is_write
        if argument.name in given and not is_viewed:
            yield from tensors_in([given[argument.name]])
