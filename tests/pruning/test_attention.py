import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from compress.errors import ConfigError
from compress.pruning.options import PruneOptions
from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import head, largest_difference, largest_gradient_difference, lively, masked_dense
from tests.strategies import Attention

X = torch.linspace(-1, 1, 42, dtype=torch.float64).reshape(1, 14, 3)


class Encoder(nn.Module):
    """``[n, tokens, 3] -> [n, 5]`` through a residual attention and a perceptron."""

    def __init__(self, attention: nn.Module, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(3, width)
        self.attention = attention
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.head = head(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attend(x)
        x = x + self.mlp(x)
        logits: Tensor = self.head(x.mean(1))
        return logits

    def attend(self, x: Tensor) -> Tensor:
        if isinstance(self.attention, nn.MultiheadAttention):
            y: Tensor = self.attention(x, x, x, need_weights=False)[0]
            return y
        return self.attention(x)


class Fused(nn.Module):
    """Attention by torch's fused function, with its width and its heads' width written down in attributes."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attention_width = heads, width // heads, width
        self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q, k, v = (
            layer(x).reshape(n, tokens, self.num_heads, self.head_dim).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        out: Tensor = self.out(y.reshape(n, tokens, self.attention_width))
        return out


class Scaled(Attention):
    """Attention whose temperature is a number of its own, and stays as it is."""

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = (0.25 * q @ k.transpose(-2, -1)).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, tokens, width))


KINDS = {
    "multi-head": lambda: nn.MultiheadAttention(32, 4, batch_first=True),
    "multi-head, weights apart": lambda: nn.MultiheadAttention(32, 4, batch_first=True, kdim=32, vdim=32),
    "by hand": lambda: Attention(32, 4),
    "a fused function": lambda: Fused(32, 4),
    "a temperature of its own": lambda: Scaled(32, 4),
}


@pytest.mark.parametrize("heads", ["dims", "whole"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_attention_is_cut_and_equal_to_the_masked_one(kind, heads):
    """Widths, heads and perceptron all lose a quarter; queries, keys and values stay what they were."""
    torch.manual_seed(0)
    net = lively(Encoder(kind()))
    plan = plan_pruning(net, X, 0.25, options=PruneOptions(heads=heads))
    small = apply_plan(net, plan)
    dense = masked_dense(net, plan)
    batch = torch.cat([X, X.flip(1)])
    assert largest_difference(small, dense, batch) < 1e-12
    assert largest_gradient_difference(small, dense, plan, batch) < 1e-12
    assert small.embed.out_features == 24
    assert plan.num_params_after / plan.num_params_before < 0.6


def test_every_head_loses_as_many_dimensions():
    """Each head keeps dimensions of its own choice, as many as the others."""
    torch.manual_seed(0)
    net = lively(Encoder(nn.MultiheadAttention(32, 4, batch_first=True)))
    plan = plan_pruning(net, X, 0.25)
    kept = plan.kept["attention.in_proj_weight", 0]
    per_head = [kept[kept // 8 == head] % 8 for head in range(12)]
    assert [len(one) for one in per_head] == [6] * 12
    assert len({tuple(one) for one in per_head}) > 2


def test_whole_heads_go_with_all_their_dimensions():
    """What is left of a cut by heads is heads as they were."""
    torch.manual_seed(0)
    net = lively(Encoder(nn.MultiheadAttention(32, 4, batch_first=True)))
    plan = plan_pruning(net, X, 0.25, options=PruneOptions(heads="whole"))
    kept = plan.kept["attention.in_proj_weight", 0]
    assert [int((kept // 8 == head).sum()) for head in range(12)].count(8) == 9
    assert apply_plan(net, plan).attention.num_heads == 3
    assert not plan.scales


def test_the_plan_names_repairs_and_scales():
    """Attributes that change and weights that make good a temperature can be read."""
    torch.manual_seed(0)
    net = lively(Encoder(Fused(32, 4)))
    text = str(plan_pruning(net, X, 0.25))
    assert "repaired  attention.head_dim: 8 -> 6" in text
    assert "repaired  attention.attention_width: 32 -> 24" in text
    assert "scaled    attention.q.weight[0] by 0.9306" in text
    assert "num_heads" not in text


def test_a_number_of_heads_is_not_taken_for_their_width():
    """Where both are the same number, heads stay as many as they were."""
    torch.manual_seed(0)
    net = lively(Encoder(Attention(16, 4), width=16))
    plan = plan_pruning(net, X, 0.5)
    assert apply_plan(net, plan).attention.heads == 4
    assert plan.kept["attention.qkv.weight", 0].shape == (24,)
    assert largest_difference(apply_plan(net, plan), masked_dense(net, plan), X) < 1e-12


def test_heads_that_follow_the_width_are_not_merged():
    """Code that makes fewer heads of a narrower width, where labels saw narrower heads, is not cut."""

    class Counted(Attention):
        def forward(self, x: Tensor) -> Tensor:
            n, tokens, width = x.shape
            q, k, v = self.qkv(x).reshape(n, tokens, 3, width // 8, 8).permute(2, 0, 3, 1, 4)
            weights = (0.3 * q @ k.transpose(-2, -1)).softmax(-1)
            return self.out((weights @ v).transpose(1, 2).reshape(n, tokens, width))

    torch.manual_seed(0)
    net = lively(Encoder(Counted(32, 4)))
    plan = plan_pruning(net, X, 0.25)
    assert "a size changes with the number of channels" in str(plan)
    assert largest_difference(apply_plan(net, plan), masked_dense(net, plan), X) < 1e-12
    whole = plan_pruning(net, X, 0.25, options=PruneOptions(heads="whole"))
    assert apply_plan(net, whole).embed.out_features == 24
    assert largest_difference(apply_plan(net, whole), masked_dense(net, whole), X) < 1e-12


def test_a_layer_that_serves_twice_takes_no_temperature():
    """What would have to be scaled for two products at once stays whole, and so does what hangs on it."""

    class Twice(Encoder):
        def attend(self, x: Tensor) -> Tensor:
            return self.attention(x) + self.attention(2 * x)

    torch.manual_seed(0)
    net = lively(Twice(Attention(32, 4)))
    plan = plan_pruning(net, X, 0.25)
    assert "a number changes with the number of channels" in str(plan)
    assert largest_difference(apply_plan(net, plan), masked_dense(net, plan), X) < 1e-12
    assert ("mlp.0.weight", 0) in plan.kept


def test_a_temperature_read_elsewhere_too_is_not_made_good():
    """Queries that are also put to another use cannot be scaled."""

    class Leaky(Attention):
        def forward(self, x: Tensor) -> Tensor:
            n, tokens, width = x.shape
            q, k, v = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
            return self.out((weights @ v + q).transpose(1, 2).reshape(n, tokens, width))

    torch.manual_seed(0)
    net = lively(Encoder(Leaky(32, 4)))
    plan = plan_pruning(net, X, 0.25)
    assert not plan.scales
    assert largest_difference(apply_plan(net, plan), masked_dense(net, plan), X) < 1e-12


def test_unknown_heads_are_refused():
    """There are two ways to make attention narrower."""
    with pytest.raises(ConfigError, match="heads must be one of dims, whole, got 'half'"):
        PruneOptions(heads="half")


@pytest.mark.parametrize("heads", ["dims", "whole"])
def test_a_vision_transformer_runs_at_another_batch_size(heads):
    """Patches, class token, positions and encoder are cut together, to 0.67 of the parameters or fewer."""
    torch.manual_seed(0)
    net = torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10
    )
    plan = plan_pruning(net.eval(), torch.zeros(1, 3, 32, 32), 0.25, options=PruneOptions(heads=heads))
    small = apply_plan(net, plan)
    assert small(torch.zeros(3, 3, 32, 32)).shape == (3, 10)
    assert small.hidden_dim == 48
    assert plan.num_params_after / plan.num_params_before < 0.6


@pytest.mark.parametrize("block", ["v1", "v2"])
def test_a_swin_transformer_is_cut_through_its_windows(block):
    """Shifted windows, biases of positions, and patches merged leave nothing whole but the tables of biases."""
    torch.manual_seed(0)
    swin = torchvision.models.swin_transformer
    net = swin.SwinTransformer(
        patch_size=[2, 2],
        embed_dim=32,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
        num_classes=10,
        block=swin.SwinTransformerBlock if block == "v1" else swin.SwinTransformerBlockV2,
        downsample_layer=swin.PatchMerging if block == "v1" else swin.PatchMergingV2,
    )
    plan = plan_pruning(net.eval(), torch.zeros(1, 3, 32, 32), 0.25)
    small = apply_plan(net, plan)
    assert small(torch.zeros(2, 3, 64, 64)).shape == (2, 10)
    assert plan.num_params_after / plan.num_params_before < 0.6
