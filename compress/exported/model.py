"""A network that is a graph: it runs without the source code it was captured from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from compress.errors import ModelError
from compress.exported.structure import Signature


class ExportedModel(nn.Module):
    """Runs a captured graph, in the one mode it was captured in.

    Attributes:
        program: the graph, its weights and the shape of its inputs.
        signature: how its inputs and outputs are nested.
        graph: the same as a module, whose parameters and buffers are the model's.
        notes: what else its file says, of types that JSON knows.
    """

    def __init__(self, program: ExportedProgram, notes: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.program = program
        self.notes = dict(notes or {})
        # Guards are Python source within the program; none of a file's is ever run.
        self.graph = program.module(check_guards=False)
        self.signature = Signature.of(program)
        self.training = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        places, names = self.signature.arranged(args, kwargs)
        return self.graph(*places, **names)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's own signature
        """Nothing for False; a graph has no training mode to go to.

        Raises:
            ModelError: for True.
        """
        if mode:
            raise ModelError(f"{type(self).__name__} cannot be trained: train the network it was exported from")
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # What a subclass has compiled belongs to the original's graph.
        twin = type(self)(copy.deepcopy(self.program, memo), copy.deepcopy(self.notes, memo))
        memo[id(self)] = twin
        return twin


def uncompiled(model: nn.Module) -> nn.Module:
    """What an eager forward pass of ``model`` runs: its graph if it is one that compiles itself, else ``model``."""
    return model.graph if isinstance(model, ExportedModel) else model


def parameters_of(model: nn.Module) -> list[Tensor]:
    """What a model has learned: its parameters, and of a graph of integer weights, which are buffers, its buffers too.

    Without its zero points, which are constants: weights are quantized symmetrically.
    """
    tensors: list[Tensor] = list(model.parameters())
    if isinstance(model, ExportedModel) and any(
        tensor.dtype in (torch.int8, torch.uint8) for tensor in model.buffers()
    ):
        tensors.extend(tensor for tensor in model.buffers() if tensor.dtype != torch.int64)
    # A layer that is called twice has its integers under two names, in the same memory.
    return list({(tensor.data_ptr(), tensor.shape, tensor.dtype): tensor for tensor in tensors}.values())


def dequantize_late_(model: ExportedModel) -> ExportedModel:
    """Have an eager run of the graph make each tensor of dequantized numbers right before its first use, in place.

    A capture puts those of all weights in front, where they would live at once, as large as those of the float model.
    """
    graph = model.graph.graph
    nodes = list(graph.nodes)
    places = {node: place for place, node in enumerate(nodes)}
    for node in nodes:
        if str(node.target).startswith("quantized_decomposed.dequantize") and node.users:
            min(node.users, key=places.__getitem__).prepend(node)
    graph.lint()
    model.graph.recompile()
    return model
