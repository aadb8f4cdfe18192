import pytest
import torch
from torch import Tensor, nn

from compress.errors import ConfigError, ModelError
from compress.pruning.options import PruneOptions
from compress.pruning.structured import apply_plan, plan_pruning
from tests.nets import Net, conv, conv_bn, head, largest_difference, lively, masked_dense, pooled

X = torch.linspace(-1, 1, 384, dtype=torch.float64).reshape(2, 3, 8, 8)


def two_outputs(wrap):
    """Logits, and the features that they are made of."""

    def forward(n: Net, x: Tensor) -> object:
        features = n.b(n.a(x))
        return wrap(n.h(pooled(features)), features)

    torch.manual_seed(0)
    return lively(Net(forward, a=conv_bn(3, 16), b=conv(16, 16), h=head(16)))


WRAPS = {
    "mapping": (lambda y, f: {"logits": y, "features": f}, lambda out: out["logits"], "'features'"),
    "tuple": (lambda y, f: (y, [f]), lambda out: out[0], "[1][0]"),
    "a list of some": (lambda y, f: (y, f, y), lambda out: [out[0], out[2]], "[1]"),
    "made of one": (lambda y, f: {"logits": y, "features": f}, lambda out: out["logits"].softmax(-1), "'features'"),
}


@pytest.mark.parametrize(("wrap", "outputs", "name"), WRAPS.values(), ids=WRAPS)
def test_outputs_that_do_not_count_may_lose_channels(wrap, outputs, name):
    """The plan says which output keeps a group, and once the others are named it is cut."""
    net = two_outputs(wrap)
    plan = plan_pruning(net, X, 0.25)
    assert f"16 ->    16  b.weight[0], b.bias[0], h.weight[1]: whole, model output {name}" in str(plan)
    assert "name those, as in PruneOptions(outputs=lambda out: ...)" in str(plan)
    plan = plan_pruning(net, X, 0.25, options=PruneOptions(outputs=outputs))
    small, dense = apply_plan(net, plan), masked_dense(net, plan)
    assert (small.b.out_channels, small.h.in_features, small.h.out_features) == (12, 12, 5)
    logits = Net(lambda n, x: outputs(n.net(x)), net=small), Net(lambda n, x: outputs(n.net(x)), net=dense)
    assert isinstance(outputs(small(X)), list) or largest_difference(*logits, X) < 1e-12
    assert "PruneOptions" not in str(plan)


def test_a_single_output_has_no_name():
    """There is nothing to choose from."""
    plan = plan_pruning(two_outputs(lambda y, _: y), X, 0.25)
    assert "model output" in [group.frozen for group in plan.groups]
    assert not plan.notes


@pytest.mark.parametrize(
    "outputs", [lambda out: out.logits, lambda _: None, lambda out: out[7]], ids=["wrong", "none", "out of range"]
)
def test_outputs_that_name_none_are_refused(outputs):
    """One sentence says what the rule is."""
    with pytest.raises(ConfigError, match="outputs must name outputs of the model"):
        plan_pruning(two_outputs(lambda y, f: (y, f)), X, 0.25, options=PruneOptions(outputs=outputs))


def test_taylor_takes_its_loss_of_the_outputs_that_count():
    """A model whose output is no tensor needs no loss of its own once its logits are named."""
    net = two_outputs(lambda y, f: {"logits": y, "features": f})
    batches = [(X, torch.tensor([1, 4]))]
    with pytest.raises(ModelError, match="needs a loss of its own"):
        plan_pruning(net, X, 0.25, "taylor", options=PruneOptions(batches=batches))
    options = PruneOptions(batches=batches, outputs=lambda out: out["logits"])
    assert ("b.weight", 0) in plan_pruning(net, X, 0.25, "taylor", options=options).kept


class Auxiliary(nn.Module):
    """A head that only training uses."""

    def __init__(self, *, kernel: int = 1, targets: bool = False) -> None:
        super().__init__()
        self.targets = targets
        self.a, self.b, self.h = conv_bn(3, 16), conv_bn(16, 16), head(16)
        self.aux = nn.Sequential(conv_bn(16, 8, 1), nn.Dropout(0.9), nn.Conv2d(8, 8, kernel), nn.BatchNorm2d(8))
        self.aux_head = head(8)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> object:
        x = self.a(x)
        y = self.h(pooled(self.b(x)))
        if not self.training:
            return y
        if self.targets and targets is None:
            raise ValueError("targets are needed")
        return {"logits": y, "aux": self.aux_head(pooled(self.aux(x)))}


@pytest.mark.parametrize("outputs", [None, lambda out: out], ids=["all", "some"])
def test_heads_that_only_training_uses_are_cut_along(outputs):
    """Their inputs and inner channels go as any, what they put out stays, and the pruned network trains."""
    torch.manual_seed(0)
    net = lively(Auxiliary())
    plan = plan_pruning(net, X, 0.25, options=PruneOptions(outputs=outputs))
    small, dense = apply_plan(net, plan), masked_dense(net, plan)
    assert (small.aux[0][0].in_channels, small.aux[2].out_channels, small.aux_head.out_features) == (12, 6, 5)
    assert "model output 'aux' in training" in str(plan)
    assert not plan.notes
    for model in (small, dense):
        model.train()
        for module in model.modules():
            module.training = not isinstance(module, (nn.Dropout, nn.BatchNorm2d))
    assert largest_difference(*(Net(lambda n, x: n.net(x)["aux"], net=net) for net in (small, dense)), X) < 1e-12
    sum(y.sum() for y in small.train()(X).values()).backward()


def test_heads_that_cannot_be_run_to_their_end_are_cut_along_as_far_as_they_ran():
    """A kernel larger than the example's image stops the run; what was read before is known."""
    torch.manual_seed(0)
    net = lively(Auxiliary(kernel=9))
    plan = plan_pruning(net, X, 0.25)
    small = apply_plan(net, plan).train()
    assert (small.aux[0][0].in_channels, small.aux[0][0].out_channels) == (12, 8)
    assert "training the pruned network may fail" in str(plan)
    small(torch.randn(2, 3, 16, 16).double())["aux"].sum().backward()


def test_a_network_that_cannot_be_run_in_train_mode_is_cut_all_the_same():
    """The plan says what could not be seen."""
    torch.manual_seed(0)
    plan = plan_pruning(lively(Auxiliary(targets=True)), X, 0.25)
    assert ("a.0.weight", 0) in plan.kept
    assert "in train mode the forward pass on the example inputs failed: targets are needed" in plan.notes[0]
