import pytest
import torch

from compress.errors import ConfigError
from compress.pruning.importance import (
    IMPORTANCES,
    activation,
    bn_scale,
    fpgm,
    importance_of,
    l1,
    l2,
    obs,
    random,
    taylor,
)

ROWS = torch.tensor([[3.0, -4.0], [0.0, 1.0], [-2.0, -2.0]])
MORE = torch.tensor([[1.0], [-5.0], [0.0]])


def test_l1_adds_absolute_weights():
    """The sum of absolute weights of a channel, over all layers that produce it."""
    assert l1([ROWS]).tolist() == [7.0, 1.0, 4.0]
    assert l1([ROWS, MORE]).tolist() == [8.0, 6.0, 4.0]


def test_l2_is_the_norm_of_all_weights_of_a_channel():
    """The Euclidean norm, as if all layers' weights stood in one row."""
    assert l2([ROWS]).tolist() == pytest.approx([5.0, 1.0, 8**0.5])
    assert l2([ROWS, MORE]).tolist() == pytest.approx([26**0.5, 26**0.5, 8**0.5])


@pytest.mark.parametrize("name", sorted(IMPORTANCES.keys() - {"random", "obs"}))
def test_importance_is_one_number_a_channel(name):
    """Every importance maps matrices of rows to a vector, larger for larger values, whatever their sign."""
    rank = IMPORTANCES[name].rank
    assert rank([ROWS, MORE]).shape == (3,)
    assert torch.equal(rank([-ROWS]), rank([ROWS]))
    assert (rank([ROWS * 2]) > rank([ROWS])).all()


def test_importances_are_found_by_name_and_functions_taken_as_they_are():
    """A name is looked up; a function is returned."""
    assert importance_of("l1").rank is l1
    assert importance_of(l2).rank is l2


@pytest.mark.parametrize("choice", ["l3", "", "L1", None, 1])
def test_an_unknown_importance_is_refused_with_the_known_names(choice):
    """The message lists what there is."""
    with pytest.raises(ConfigError, match=r"^importance must be one of l1, l2, .*, random, or a function, got "):
        importance_of(choice)


def test_bn_scale_adds_absolute_scales():
    """The sum over a channel's norms."""
    assert bn_scale([torch.tensor([[0.5], [-2.0]]), torch.tensor([[1.0], [0.25]])]).tolist() == [1.5, 2.25]


def test_taylor_is_the_mean_square_over_batches():
    """Terms of opposite sign in two batches do not cancel."""
    assert taylor([torch.tensor([[1.0, -1.0], [0.5, 0.0]])]).tolist() == [1.0, 0.125]


def test_activation_is_the_mean_over_places():
    """Every place counts alike, in however many layers it lies."""
    assert activation([torch.tensor([[1.0], [4.0]]), torch.tensor([[2.0], [2.0]])]).tolist() == [1.5, 3.0]


def test_fpgm_is_least_in_the_middle_of_the_others():
    """However large the filter: what lies between others can be stood in for by them."""
    assert fpgm([torch.tensor([[9.0], [10.0], [12.0]])]).tolist() == [4.0, 3.0, 5.0]


def test_obs_takes_the_errors_as_they_are():
    """Of several groups, too: they are in one unit."""
    assert obs([torch.tensor([[0.25], [0.75]])]).tolist() == [0.25, 0.75]
    assert [name for name, criterion in IMPORTANCES.items() if criterion.is_absolute] == ["obs"]


def test_random_takes_the_numbers_as_they_are():
    """What was drawn is the importance."""
    assert random([torch.tensor([[0.25], [0.75]])]).tolist() == [0.25, 0.75]


def test_only_those_that_read_data_need_it():
    """A network alone is enough for all but three."""
    needing = {name for name, criterion in IMPORTANCES.items() if criterion.needs_data}
    assert needing == {"taylor", "activation", "obs"}
