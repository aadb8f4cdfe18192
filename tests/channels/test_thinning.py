import numpy as np

from compress.channels.thinning import step_of


def test_parts_lose_equally_many_of_what_each_has_enough_of():
    """Three channels are too few to be thinned finely; of the others, one of each head goes in a step."""
    heads = np.array([[1, 0, 1], [1, 0, 1], [0, 1, 0]])
    assert step_of([14, 20, 3], [True] * 3, [heads]) == (1, 1, 0)


def test_what_must_stay_is_left_out():
    """A cell that may lose none takes no part, and neither does one that could only lose with it."""
    assert step_of([10, 20], [False, True], []) == (0, 1)
    assert step_of([10, 10, 20], [False, True, True], [np.array([[1, 0, 0], [0, 0, 1]])]) == (0, 1, 0)


def test_cells_of_several_positions_balance_single_ones():
    """A channel that stands in one part twice goes with two of another part."""
    assert step_of([20, 40], [True, True], [np.array([[2, 0], [0, 1]])]) == (1, 2)


def test_there_may_be_no_step():
    """Parts of which one can lose nothing stay, and so do channels too few for five steps."""
    assert step_of([4, 20], [True, True], [np.array([[1, 0], [0, 1]])]) is None
    assert step_of([20, 20], [False, True], [np.array([[1, 0], [0, 1]])]) is None
    assert step_of([4, 3], [True, True], []) is None
