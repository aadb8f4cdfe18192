import torch

from compress.calling.inputs import Inputs
from compress.channels.groups import is_channel_group, resolve
from compress.channels.trace import trace
from tests.nets import Net, conv, conv_bn, head, pooled


def groups_of(net: Net) -> dict[frozenset[str], tuple[int, str | None]]:
    """For each group of channels, by where it lives: how many they are and why they stay."""
    channels = resolve(trace(net, Inputs(args=(torch.randn(1, 3, 8, 8),))))
    return {
        frozenset(f"{channels.slots[slot].tensor}[{channels.slots[slot].dim}]" for slot in group.members): (
            group.num_channels,
            group.reason,
        )
        for group in channels.groups
        if is_channel_group(group)
    }


def test_a_group_lives_wherever_its_channels_do():
    """Convolution, norm, and the columns of the next layer make one group; input and output are frozen."""
    found = groups_of(Net(lambda n, x: n.h(pooled(n.a(x))), a=conv_bn(3, 16), h=head(16)))
    norm = {f"a.1.{name}[0]" for name in ("weight", "bias", "running_mean", "running_var")}
    assert found == {
        frozenset({"a.0.weight[0]", "a.0.bias[0]", "h.weight[1]"} | norm): (16, None),
        frozenset({"a.0.weight[1]"}): (
            3,
            "fed by values without channel labels (aten.convolution, layer 'a.0')",
        ),
        frozenset({"h.weight[0]", "h.bias[0]"}): (5, "model output"),
    }


def test_a_residual_is_one_group_and_a_concatenation_two():
    """A sum ties channels; a concatenation leaves each layer a group of its own."""
    total = groups_of(Net(lambda n, x: n.h(pooled(n.a(x) + n.b(x))), a=conv(3, 8), b=conv(3, 8), h=head(8)))
    assert frozenset({"a.weight[0]", "a.bias[0]", "b.weight[0]", "b.bias[0]", "h.weight[1]"}) in total
    beside = groups_of(
        Net(lambda n, x: n.h(pooled(torch.cat([n.a(x), n.b(x)], 1))), a=conv(3, 8), b=conv(3, 4), h=head(12))
    )
    assert beside[frozenset({"a.weight[0]", "a.bias[0]", "h.weight[1]"})] == (8, None)
    assert beside[frozenset({"b.weight[0]", "b.bias[0]", "h.weight[1]"})] == (4, None)


def test_groups_of_a_grouped_convolution_keep_in_step():
    """Both sides of a grouped convolution hold one cell for each part, bound to lose the same fraction."""
    net = Net(lambda n, x: n.h(pooled(n.b(n.a(x)))), a=conv(3, 8), b=conv(8, 12, groups=2), h=head(12))
    channels = resolve(trace(net, Inputs(args=(torch.randn(1, 3, 8, 8),))))
    sizes = [sorted(len(cell.units) for cell in group.cells) for group in channels.groups if group.reason is None]
    assert sizes == [[4, 4], [6, 6]]


def test_what_forward_leaves_out_is_frozen():
    """A layer that does not take part keeps its size, and says so."""
    found = groups_of(Net(lambda n, x: n.h(pooled(n.a(x))), a=conv(3, 8), h=head(8), aux=conv(8, 4)))
    assert found[frozenset({"aux.weight[1]"})] == (8, "not used by the forward pass")


def test_every_place_belongs_to_one_channel():
    """The cells of all groups hold each id once, and each channel once."""
    net = Net(lambda n, x: n.h(pooled(n.b(n.a(x)) + n.a(x))), a=conv_bn(3, 8), b=conv(8, 8, groups=4), h=head(8))
    channels = resolve(trace(net, Inputs(args=(torch.randn(1, 3, 8, 8),))))
    cells = [cell for group in channels.groups for cell in group.cells]
    assert sorted(i for cell in cells for i in cell.ids.reshape(-1).tolist()) == list(range(len(channels.units)))
    assert sorted(u for cell in cells for u in cell.units.tolist()) == list(range(len(channels.group_of)))
