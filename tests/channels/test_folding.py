import pytest

from compress.channels.folding import Fold, folds


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ([12], [3, 4], [Fold(4, 0, 1), Fold(3, 0, 0)]),
        ([3, 4], [12], [Fold(4, 1, 0), Fold(3, 0, 0)]),
        ([2, 12], [6, 4], [Fold(4, 1, 1), Fold(3, 1, 0), Fold(2, 0, 0)]),
        ([1, 5], [5, 1, 1], [Fold(5, 1, 0)]),
        ([], [1], []),
        ([36, 64], [64, 6, 6], None),
    ],
)
def test_a_reshape_is_a_list_of_factors(old, new, found):
    """Innermost first, dimensions of one position left out; None where sizes do not divide each other."""
    assert folds(old, new) == found
