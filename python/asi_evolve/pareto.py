"""Pareto ranking and crowding distance as in NSGA-II, in C++.

Objectives are minimised unless ``maximize`` says otherwise: ``None`` or ``False`` minimises all, ``True`` maximises
all, a sequence of bools speaks for each objective. ``F`` is any real array or nested sequence of shape (points,
objectives); float32 and float64 are read in place with any strides. ``inf`` and ``-inf`` are ordered like numbers;
NaN is a ValueError that names row and column.

Source: Deb, Pratap, Agarwal, Meyarivan 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asi_evolve import _native

__all__ = ["Front", "crowding_distance", "rank"]


def rank(F: ArrayLike, maximize: bool | Sequence[bool] | None = None) -> NDArray[np.int32]:
    """Rank of each point in non-dominated sorting (section III-A).

    a dominates b when it is no worse in every objective and better in at least one. Rank 1 is dominated by nothing;
    rank r + 1 only by points of rank r and less. Equal points dominate each other not, and share a rank.

    Args:
        F: (points, objectives), at least 1 objective; 0 points are allowed.
        maximize: see the module.

    Returns:
        int32 (points,).

    Raises:
        ValueError: NaN, not two dimensions, no objectives, or a wrong number of flags.
        TypeError: not real numbers.
    """
    return _native.pareto_rank(F, maximize)


def crowding_distance(F: ArrayLike, ranks: ArrayLike | None = None) -> NDArray[np.float64]:
    """Crowding distance of each point among those of its rank (section III-B); larger is less crowded.

    Per objective, the points of a rank are sorted; the two ends get inf, every other point the gap between its two
    neighbours over the range of the objective; the distance is the sum over objectives. Fronts of one or two points are
    all inf. An objective that is the same for a whole front adds nothing. Ties within an objective are broken by the
    other objectives, then by position. The range is that of the finite values; a gap to an infinite value is inf.
    Which direction an objective is optimised in does not matter.

    Args:
        F: (points, objectives).
        ranks: integers (points,), as from :func:`rank`; None ranks F minimising every objective.

    Returns:
        float64 (points,), not negative.

    Raises:
        ValueError, TypeError: as :func:`rank`, and for ranks of another length.
    """
    return _native.pareto_crowding_distance(F, ranks)


class Front:
    """Keeps exact ranks while points arrive and change one at a time.

    Level update after Li, Deb, Zhang, Kwong 2017, "Efficient nondomination level update method for steady-state
    evolutionary multiobjective optimization".

    Args:
        n_objectives: at least 1.
        maximize: see the module.
    """

    __slots__ = ("_front",)

    def __init__(self, n_objectives: int, maximize: bool | Sequence[bool] | None = None) -> None:
        self._front = _native.ParetoFront(n_objectives, maximize)

    def insert(self, f: ArrayLike) -> int:
        """Adds a point (objectives,) and returns its rank; ranks of earlier points may grow.

        Raises ValueError for NaN or another number of objectives; nothing is added then.
        """
        return self._front.insert(f)

    def update(self, index: int, f: ArrayLike) -> int:
        """Moves point ``index`` (in order of insertion) to ``f`` and returns its new rank; ranks of others may grow or
        shrink.

        Raises IndexError for a point that is not there, ValueError as :meth:`insert`; nothing is changed then.
        """
        return self._front.update(index, f)

    def rank(self, index: int) -> int:
        """Rank of one point. Raises IndexError."""
        return self._front.rank(index)

    def members(self, rank: int) -> NDArray[np.int32]:
        """int32: the points of a rank, in no particular order; empty beyond the last rank."""
        return self._front.members(rank)

    @property
    def ranks(self) -> NDArray[np.int32]:
        """int32 (points,): ranks of all points now, in order of insertion; a copy."""
        return self._front.ranks

    def __len__(self) -> int:
        return len(self._front)
