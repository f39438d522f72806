"""Which chips make up which batch: a pure function of (rows, batch size, seed), known before a step is taken.

Because the plan is fixed up front, all ranks take the same number of steps, a run that was cut off goes on
at any step, and the batch at a step is the same for any number of workers (rank r takes slice r of it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BatchPlan:
    """The global batches of a whole training.

    Args:
        rows_N: catalogue rows to train on, at least one.
        batch_size: global batch size.
        seed: the order of epoch ``e`` follows from ``(seed, e)``.

    An epoch takes ``len(rows_N) // batch_size`` steps (at least one); which rows it leaves out changes
    from epoch to epoch. Fewer rows than one batch are repeated to fill it.
    """

    rows_N: NDArray[np.int64]
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        assert len(self.rows_N) > 0, "nothing to train on"

    @property
    def steps_per_epoch(self) -> int:
        """Steps that every rank takes in an epoch."""
        return max(1, len(self.rows_N) // self.batch_size)

    def epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """All rows in the order of ``epoch``, at least one batch long."""
        order_N = np.random.default_rng([self.seed, epoch]).permutation(self.rows_N)
        return np.resize(order_N, self.batch_size) if len(order_N) < self.batch_size else order_N

    def batches(self, first_step: int, last_step: int) -> list[NDArray[np.int64]]:
        """The rows of the global batches ``first_step`` up to, not including, ``last_step``."""
        found: list[NDArray[np.int64]] = []
        epoch, order_N = -1, np.empty(0, np.int64)
        for step in range(first_step, last_step):
            wanted, position = divmod(step, self.steps_per_epoch)
            if wanted != epoch:
                epoch, order_N = wanted, self.epoch_order(wanted)
            found.append(order_N[position * self.batch_size : (position + 1) * self.batch_size])
        return found

    def step_rng(self, step: int) -> np.random.Generator:
        """The generator behind everything that is drawn for the global batch of ``step``."""
        return np.random.default_rng([self.seed, 1 + step, 0xC40])


def rank_slice(size: int, rank: int, world: int) -> slice:
    """Rank ``rank``'s contiguous share of ``size`` items; over the ranks sizes differ by at most one."""
    assert 0 <= rank < world
    return slice(size * rank // world, size * (rank + 1) // world)
