"""Several processes that train one model together inside a sandbox.

Gradients are added up in shared memory: a sandbox has no sockets, so torch.distributed cannot meet there. (An exported
model's train.py, which nothing contains, runs under torchrun.)
"""

from __future__ import annotations

import mmap
import os
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Total = Callable[[Tensor], None]


class Shared:
    """Adds vectors up over forked processes. The sum is taken in the order of ranks, so every process gets the same.

    Args:
        size: processes. numbers: the longest vector.
    """

    def __init__(self, size: int, numbers: int) -> None:
        self.size = size
        self._memory = mmap.mmap(-1, 4 * size * numbers)  # anonymous and shared: forked processes see the same pages
        self._rows = torch.frombuffer(self._memory, dtype=torch.float32).view(size, numbers)
        self._up = {rank: os.pipe() for rank in range(1, size)}  # to rank 0
        self._down = {rank: os.pipe() for rank in range(1, size)}
        self.rank = 0

    def enter(self, rank: int) -> None:
        """Takes a rank. Closes the others' ends, so that whoever ends is missed."""
        self.rank = rank
        for other in self._up:
            ends = (self._up[other], self._down[other])
            mine = (ends[0][0], ends[1][1]) if rank == 0 else (ends[0][1], ends[1][0]) if rank == other else ()
            for descriptor in (*ends[0], *ends[1]):
                if descriptor not in mine:
                    os.close(descriptor)

    def leave(self) -> None:
        """Closes rank 0's ends, so that the others do not wait for it."""
        for other in self._up:
            os.close(self._up[other][0])
            os.close(self._down[other][1])

    def total(self, values: Tensor) -> None:
        """See :class:`asi_evolve.domains.algorithm.training.Spread`. Raises RuntimeError: another process has ended."""
        n = len(values)
        self._rows[self.rank, :n] = values.cpu()
        self._meet()
        values.copy_(self._rows[:, :n].sum(0))
        self._meet()  # nobody writes before all have read

    def _meet(self) -> None:
        try:
            if self.rank:
                os.write(self._up[self.rank][1], b".")
                if os.read(self._down[self.rank][0], 1):
                    return
            elif all(os.read(self._up[other][0], 1) for other in self._up):
                for other in self._down:
                    os.write(self._down[other][1], b".")
                return
        except BrokenPipeError:
            pass
        raise RuntimeError("another process of this training has ended")


def together(size: int, numbers: int, work: Callable[[int, Total], Any]) -> Any:
    """Calls ``work(rank, total)`` in ``size`` processes: rank 0 is this one, and its value is returned.

    Args:
        size: processes. numbers: longest vector to add up. work: does the same in every process, but for ``rank``.

    Raises:
        RuntimeError: another process has ended early.
    """
    shared = Shared(size, numbers)
    children = []
    for rank in range(1, size):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                shared.enter(rank)
                work(rank, shared.total)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    shared.enter(0)
    try:
        return work(0, shared.total)
    finally:
        shared.leave()
        for child in children:
            os.waitpid(child, 0)
