from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.errors import ModelError
from compress.pruning.semi_structured import pack_, to_semi_structured_
from compress.pruning.unstructured import prune_weights


def packed(weight: Tensor) -> Tensor:
    """Stands for torch's packing, which needs a GPU: the weight, marked."""
    assert weight.is_contiguous()
    return weight + 0


def net(dtype: torch.dtype = torch.float16, pattern: str = "2:4") -> nn.Module:
    """Three linear layers, of which two have a shape that sparse kernels take."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 128), nn.Linear(128, 96), nn.Conv1d(4, 32, 1))
    return prune_weights(model, pattern=pattern).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_layers_that_hold_the_pattern_are_packed(dtype):
    """Those of fitting shape, whose names are returned; the rest and all values stay, masks have become zeros."""
    model = net(dtype)
    before = [layer.weight.detach().clone() for layer in model]
    assert pack_(model, packed) == ("0", "2")
    assert [layer.weight.requires_grad for layer in model] == [False, True, False, True]
    assert all(layer.weight.equal(weight) for layer, weight in zip(model, before, strict=True))
    assert not [name for name, _ in model.named_buffers()]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (net(torch.float32), "'0' is in float32, '1' is in float32, '2' is in float32"),
        (
            net(pattern="3:4"),
            r"'0' is not 2:4 sparse, '1' of shape \[128, 32\] is no multiple of \[32, 64\], '2' is not",
        ),
        (nn.Conv2d(4, 4, 1).half(), "has no linear layer"),
    ],
    ids=["float", "denser", "convolution"],
)
def test_a_model_of_which_nothing_can_be_packed_is_refused(model, reason):
    """The sentence says what works, and what stands in the way here."""
    with pytest.raises(ModelError, match=f"^semi-structured tensors speed up linear layers .* this model {reason}"):
        pack_(model, packed)


def test_on_a_cpu_it_says_what_works():
    """No fall-back to something slower in silence."""
    with pytest.raises(
        ModelError, match=r"in half precision, pruned to 2:4, on a CUDA device .*, this model lies on cpu$"
    ):
        to_semi_structured_(net())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="semi-structured tensors exist on CUDA only")
def test_packed_layers_put_out_the_same():
    """On a GPU the packed model agrees with the zeros it was made of."""
    model = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 64))
    model = prune_weights(model, pattern="2:4").half().cuda().eval()
    x = torch.randn(64, 256, device="cuda", dtype=torch.float16)
    with torch.inference_mode():
        expected = model(x)
        assert to_semi_structured_(model) == ("0", "2")
        assert torch.allclose(model(x), expected, atol=1e-2)
