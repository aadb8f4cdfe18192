"""How channels that must keep in step are thinned where the same fraction of all is too coarse.

Parts of a dimension that must keep equally many positions each (heads, chunks) hold channels of several kinds: some
that are turned by a rotary embedding, three of each head, and others that are not, fourteen. A fraction that is a whole
number of both may be all or nothing. But each head keeps as many as the others too if only the fourteen are thinned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_TRIED = (10, 5)  # steps that a group is to be thinned by, the finest first
_NODES = 1000  # of the search, so that it ends, and ends alike on every machine


def step_of(
    sizes: Sequence[int], free: Sequence[bool], parts: Sequence[npt.NDArray[np.int64]]
) -> tuple[int, ...] | None:
    """How many channels of each cell go together so that all parts lose equally many: as few as can be of each.

    Args:
        sizes: of the cells.
        free: whether each may lose any.
        parts: of each dimension in parts ``[parts, cells]``: how many positions a channel of the cell has in the part.

    Returns:
        What one step takes, of as many cells as possible; None if there is no step that is small enough.
    """
    rows = [row - counts[0] for counts in parts for row in counts[1:]]
    equations = np.unique(np.array(rows).reshape(len(rows), len(sizes)), axis=0)
    equations = equations[equations.any(axis=1)]
    for num_steps in _TRIED:
        most = np.array(sizes) // num_steps * np.array(free)
        step = _smallest(np.array(sizes), most, equations)
        if step is not None:
            return step
    return None


def _smallest(
    sizes: npt.NDArray[np.int64], most: npt.NDArray[np.int64], equations: npt.NDArray[np.int64]
) -> tuple[int, ...] | None:
    """Whole numbers from 0 to ``most`` that solve ``equations``: of as many channels as possible, and then the least.

    Each cell has a number and, behind those, a switch: 1 only if the number is not 0.
    """
    # Takes a tenth of a second, which most networks can do without.
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415

    if not most.any():
        return None
    count, each = len(sizes), np.eye(len(sizes))
    constraints = [LinearConstraint(np.hstack([each, -each]), 0, np.inf)]
    if len(equations):
        constraints.append(LinearConstraint(np.hstack([equations, np.zeros_like(equations)]), 0, 0))
    found = milp(
        np.concatenate([np.ones(count), -sizes * (1.0 + most.sum())]),
        integrality=np.ones(2 * count),
        bounds=Bounds(0, np.concatenate([most, np.minimum(most, 1)])),
        constraints=constraints,
        options={"node_limit": _NODES},
    )
    step = None if found.x is None else tuple(int(one) for one in np.round(found.x[:count]))
    return step if step is not None and any(step) else None
