from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.errors import ConfigError, ModelError
from compress.pruning.options import PruneOptions
from compress.pruning.reconstruct import reconstruct
from compress.pruning.structured import plan_pruning, prune_channels
from tests.nets import Net, conv, conv_bn, head, lively, pooled
from tests.pruning.test_reconstruct import batches, distance, images, net

X = images(1).double()


def pruned(model: nn.Module, ratio: float | None, importance: str = "obs", **settings: object) -> nn.Module:
    """Cut and repaired on the same batches."""
    options = PruneOptions(batches=batches(), **settings)  # type: ignore[arg-type]
    small = prune_channels(model, X, ratio, importance, options=options)
    return reconstruct(small, model, batches())


def test_channels_chosen_by_what_can_be_repaired_leave_less_error():
    """On images that nothing was fitted on, after the same repair and at half the channels: not half the error."""
    dense, others = net(), images(64, seed=99).double()
    left = {name: distance(pruned(dense, 0.5, name), dense, others) for name in ("obs", "l1", "activation", "random")}
    assert left["obs"] < min(left[name] for name in ("l1", "activation", "random")) / 2


def test_copies_of_channels_are_what_goes():
    """Of eight channels of which four repeat the others, those that stay are four different ones."""
    torch.manual_seed(0)
    dense = lively(nn.Sequential(conv_bn(3, 8), conv(8, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head(6)))
    with torch.no_grad():
        for tensor in [*dense[0].parameters(), *dense[0].buffers()]:
            if tensor.ndim:
                tensor[4:] = tensor[:4]
    plan = plan_pruning(dense, X, 0.5, "obs", options=PruneOptions(batches=batches()))
    kept = next(indices for member, indices in plan.kept.items() if member.tensor == "0.0.weight")
    assert sorted(kept % 4) == [0, 1, 2, 3]


def branches() -> Net:
    """Two branches whose channels one convolution takes in together; a grouped one and attention's kin behind it."""
    torch.manual_seed(0)
    return lively(  # type: ignore[return-value]
        Net(
            lambda n, x: n.h(pooled(n.d(n.c(torch.cat([n.a(x), n.b(x)], 1))))),
            a=conv_bn(3, 8),
            b=conv_bn(3, 8, 1),
            c=conv_bn(16, 16, 1),
            d=conv(16, 16, 3, groups=4),
            h=head(16),
        )
    )


def test_branches_and_grouped_convolutions_are_ranked():
    """Nothing is left out that has a layer to take it in, and the repaired network comes near the dense one."""
    dense, others = branches(), images(64, seed=99).double()
    assert distance(pruned(dense, 0.25), dense, others) < distance(pruned(dense, 0.25, "random"), dense, others)


def test_linear_layers_behind_flattened_images_count_all_their_places():
    """A channel that 16 inputs of a linear layer are of is one block of them."""
    torch.manual_seed(0)
    dense = lively(nn.Sequential(conv_bn(3, 8), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 5)))
    others = images(64, seed=99).double()
    assert distance(pruned(dense, 0.5), dense, others) < distance(pruned(dense, 0.5, "l1"), dense, others)


def test_heads_of_attention_are_ranked_without_a_layer_that_takes_queries_in():
    """Queries and keys meet in a product without weights: their share in the energy counts."""
    torch.manual_seed(0)
    dense = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0).eval().double()
    x = torch.randn(8, 5, 16, generator=torch.Generator().manual_seed(1)).double()
    small = prune_channels(dense, x, 0.25, "obs", options=PruneOptions(batches=[x]))
    assert small(x).shape == x.shape
    assert small.linear1.weight.shape[0] == 24


def test_the_same_seed_chooses_the_same_channels():
    """To the index."""
    options = PruneOptions(batches=batches(2), scope="global")
    first, second = (plan_pruning(net(), X, 0.3, "obs", options=options).kept for _ in range(2))
    assert {member: tuple(kept) for member, kept in first.items()} == {m: tuple(kept) for m, kept in second.items()}


def test_weights_that_two_products_read_are_ranked_by_both():
    """A layer called twice sees what goes into both calls."""
    torch.manual_seed(0)
    dense = lively(Net(lambda n, x: n.h(pooled(n.b(n.a(x)) + n.b(n.a(-x)))), a=conv_bn(3, 8), b=conv(8, 6), h=head(6)))
    assert distance(pruned(dense, 0.5), dense, images(64, seed=99).double()) < 1


def test_activations_that_are_no_numbers_are_refused():
    """The message says which layer they go into."""
    bad = X.clone()
    bad[0, 0, 0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"activations must be finite for channels to be ranked, those into '\S+' are"):
        prune_channels(net(), X, 0.5, "obs", options=PruneOptions(batches=[bad]))


def test_data_is_needed():
    """There is nothing to rank by without it."""
    with pytest.raises(ConfigError, match="importance 'obs' needs data"):
        prune_channels(net(), X, 0.5, "obs")
