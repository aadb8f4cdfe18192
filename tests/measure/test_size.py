from __future__ import annotations

import copy
import math
import zlib

import pytest
import torch
from torch import nn

from compress.artifacts import artifact
from compress.errors import MeasureError, ModelError
from compress.exported import ExportedModel, capture
from compress.exported.file_model import FileModel
from compress.measure import size
from compress.pruning.structured import prune_channels
from compress.pruning.unstructured import prune_weights
from tests.workloads import tiny_net

IMAGE = torch.zeros(1, 3, 8, 8)

# The tiny network, width 5: two convolutions, two norms, a classifier.
PARAMS = (5 * 3 * 9) + 10 + (10 * 5 * 9 + 10) + 20 + (3 * 10 + 3)
MACS = 64 * (5 * 3 * 9) + 64 * (10 * 5 * 9) + 3 * 10


class Product(nn.Module):
    """``[n, 4, 6] -> [n, 4, 4]``, each input multiplied with its own transpose."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ x.transpose(1, 2)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        # out height * out width * out channels * in channels of a group * kernel height * kernel width
        (nn.Conv2d(3, 5, 3, padding=1), (3, 8, 8), 8 * 8 * 5 * 3 * 9),
        (nn.Conv2d(3, 5, 3, stride=2), (3, 9, 7), 4 * 3 * 5 * 3 * 9),
        (nn.Conv2d(4, 8, 3, groups=2, bias=False), (4, 8, 8), 6 * 6 * 8 * 2 * 9),
        (nn.Conv2d(6, 6, (1, 5), groups=6), (6, 8, 8), 8 * 4 * 6 * 1 * 5),
        (nn.Conv2d(2, 3, 3, dilation=2), (2, 8, 8), 4 * 4 * 3 * 2 * 9),
        (nn.Conv1d(2, 3, 4), (2, 10), 7 * 3 * 2 * 4),
        # in height * in width * in channels * out channels * kernel
        (nn.ConvTranspose2d(4, 3, 2, stride=2), (4, 5, 5), 5 * 5 * 4 * 3 * 4),
        (nn.Linear(6, 7), (6,), 6 * 7),
        (nn.Linear(6, 7, bias=False), (5, 6), 5 * 6 * 7),
        (Product(), (4, 6), 4 * 4 * 6),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)), (3, 8, 8), 0),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_macs_follow_the_closed_form_whatever_the_batch(layer, shape, expected, batch):
    """Convolutions and matrix products by their formulas, for one input of a batch; everything else is free."""
    assert size.count_macs(layer, torch.zeros(batch, *shape)) == expected


def test_macs_of_a_whole_network_are_the_sum():
    """Every layer counts, once, and the pair holds dense and compressed."""
    measured = size.macs(prune_channels(tiny_net(), IMAGE, 0.4), tiny_net(), IMAGE)
    assert measured.metric == "macs"
    assert measured.dense == MACS
    assert measured.compressed == 64 * (3 * 3 * 9) + 64 * (6 * 3 * 9) + 3 * 6


def test_counting_macs_leaves_the_model_as_it_is():
    """A model in train mode keeps its running statistics, its mode, and does not draw random numbers for dropout."""
    model = tiny_net().train()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert size.count_macs(model, IMAGE) == MACS
    assert torch.rand(1).equal(expected)
    assert all(value.equal(model.state_dict()[name]) for name, value in before.items())
    assert all(module.training for module in model.modules())


def test_macs_that_cannot_all_be_counted_are_not_measured():
    """What a library multiplies past PyTorch would pass for free, and a regression there for none."""

    class Elsewhere(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.numpy() @ self.weight.detach().numpy().T)

    with pytest.raises(ModelError, match=r"^the metric macs needs a count of all .* Elsewhere, whose weights"):
        size.count_macs(Elsewhere(3, 2), torch.zeros(1, 3))


def test_parameters_are_counted():
    """All parameters and no buffers; the channels that pruning removes are gone from the count."""
    measured = size.num_params(prune_channels(tiny_net(), IMAGE, 0.4), tiny_net())
    assert (measured.metric, measured.dense) == ("num_params", PARAMS)
    assert measured.compressed == (3 * 3 * 9) + 6 + (6 * 3 * 9 + 6) + 12 + (3 * 6 + 3)


def test_masked_weights_are_parameters_but_not_nonzero_ones():
    """Masks change the number of non-zero parameters by exactly what they mask, and no other size."""
    dense = tiny_net()
    for name, parameter in dense.named_parameters():
        # A norm's bias is born zero; here every zero shall come from pruning.
        nn.init.constant_(parameter, 1.0 + len(name))
    pruned = prune_weights(dense, 0.5)
    assert size.num_params(pruned, dense).compressed == PARAMS
    measured = size.num_nonzero_params(pruned, dense)
    assert (measured.metric, measured.dense) == ("num_nonzero_params", PARAMS)
    assert measured.compressed == PARAMS - sum(math.floor(n / 2 + 0.5) for n in (5 * 27, 10 * 45, 30))
    assert size.macs(pruned, dense, IMAGE).ratio == 1.0


def test_negative_zero_is_zero():
    """A weight that a mask took to -0.0 does not count as non-zero; NaN and the smallest number do."""
    layer = nn.Linear(4, 1, bias=False)
    layer.weight.data = torch.tensor([[-0.0, 0.0, 1e-45, math.nan]])
    assert size.count_nonzero_params(layer) == 2


def test_a_shared_parameter_counts_once():
    """Two layers with one weight have one weight."""
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    assert size.count_params(model) == size.count_nonzero_params(model) == 16


def test_file_bytes_are_those_of_the_saved_file(tmp_path):
    """The number measured is that of the bytes on disk, for dense, cut and masked models."""
    dense = tiny_net()
    for compressed in (prune_channels(dense, IMAGE, 0.4), prune_weights(dense, 0.5)):
        measured = size.file_bytes(compressed, dense)
        for model, expected in ((dense, measured.dense), (compressed, measured.compressed)):
            artifact.save(model, tmp_path / "model")
            assert (tmp_path / "model").stat().st_size == expected
        assert measured.metric == "file_bytes"


def test_compressed_file_bytes_are_those_of_the_file_after_deflate(tmp_path):
    """What DEFLATE makes of the saved file: zeros, which cost as much as weights there, cost little."""
    dense, halved = nn.Linear(256, 256), prune_weights(nn.Linear(256, 256), 0.5)
    deflated = size.count_compressed_file_bytes(halved)
    artifact.save(halved, tmp_path / "model")
    assert deflated == len(zlib.compress((tmp_path / "model").read_bytes()))
    assert 0.5 < deflated / size.count_compressed_file_bytes(dense) < 0.75
    assert size.file_bytes(halved, dense).ratio == 1.0


def test_the_ratio_is_compressed_over_dense():
    """Arguments are (compressed, dense): a smaller compressed model has a ratio below 1."""
    small, large = nn.Linear(2, 2, bias=False), nn.Linear(4, 4, bias=False)
    assert size.num_params(small, large).ratio == 0.25


def test_a_quantized_model_counts_by_its_state(tiny_int8, tiny_dense):
    """Integer weights, though no parameters, count; norms are folded; MACs are those of the float model."""
    weights = 5 * 27 + 10 * 45 + 30
    measured = size.num_params(tiny_int8.model, tiny_dense)
    # A bias and a scale for each output channel.
    assert measured.compressed == weights + 2 * (5 + 10 + 3)
    assert weights * 0.9 < size.count_nonzero_params(tiny_int8.model) <= weights + 2 * (5 + 10 + 3)
    assert size.macs(tiny_int8.model, tiny_dense, IMAGE).ratio == 1.0


def test_the_file_of_a_quantized_model_is_what_is_deployed(tmp_path, tiny_int8):
    """The number measured is that of the ``.pt2`` file."""
    artifact.save(tiny_int8.model, tmp_path / "int8.pt2")
    assert size.count_file_bytes(tiny_int8.model) == (tmp_path / "int8.pt2").stat().st_size


class _Sealed(FileModel):
    """A file whose runtime shows nothing of it."""

    kind = "a sealed model"

    def _open(self, _place):
        return ["x"], None


@pytest.mark.parametrize("count", [size.count_params, size.count_nonzero_params, lambda m: size.count_macs(m, IMAGE)])
def test_of_a_sealed_file_nothing_is_counted_as_zero(count):
    """PyTorch sees neither its parameters nor its operations: no count is a count of none."""
    with pytest.raises(MeasureError, match="of a sealed model cannot be told"):
        count(_Sealed(b""))


def test_buffers_of_a_graph_in_float_are_no_parameters():
    """The statistics of batch norms are what they are in the network, if the network is a graph in a file."""
    network = tiny_net().eval()
    assert size.count_params(ExportedModel(capture(network, IMAGE))) == PARAMS
