import pytest
import torch
import torchvision  # noqa: F401 - registers its operations

from compress.channels import rules
from compress.channels.pointwise import pointwise


@pytest.mark.parametrize(
    ("op", "name"),
    [
        (torch.ops.aten.relu_.default, "relu"),
        (torch.ops.aten.add.Tensor, "add"),
        (torch.ops.aten._softmax.default, "_softmax"),
        (torch.ops.prims.convert_element_type.default, "prims::convert_element_type"),
    ],
)
def test_operations_are_known_by_their_plain_name(op, name):
    """Overload and in-place underscore make no difference; other namespaces do."""
    assert rules.base_name(op) == name


@pytest.mark.parametrize("name", sorted(rules.TABLE))
def test_every_name_in_the_table_is_an_operation(name):
    """No rule is misspelt: each is an operation of ATen, or of the namespace before it, or its plain form."""
    namespace, _, plain = name.rpartition("::")
    operations = getattr(torch.ops, namespace or "aten")
    assert hasattr(operations, plain) or hasattr(operations, f"{plain}_")


def test_pointwise_operations_need_no_entry():
    """Torch's own tag decides, also for in-place forms that lack it."""
    assert rules.rule_of(torch.ops.aten.sigmoid.default) is pointwise
    assert rules.rule_of(torch.ops.aten.masked_fill_.Scalar) is pointwise


@pytest.mark.parametrize(
    "op",
    [
        torch.ops.aten.sort.default,
        torch.ops.aten.add.out,
        torch.ops.aten.squeeze_.dim,
        torch.ops.aten._foreach_add_.Scalar,
    ],
)
def test_what_has_no_rule_is_unknown(op):
    """No rule, an output argument, a new shape in place, or no result: labels cannot be followed."""
    assert rules.rule_of(op) is rules.unknown
