"""Which chips make up which batch: a pure function of its arguments, known before a step is taken.

Because the plan is fixed up front, all ranks take the same number of steps, a run that was cut off goes on
at any step, and the batch at a step is the same for any number of workers (rank r takes slice r of it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canopy.data.loading.class_balance import total_copies, whole_copies


@dataclass(frozen=True)
class BatchSampler:
    """The global batches of a whole training.

    Args:
        rows_N: catalogue rows to train on, at least one.
        batch_size: global batch size.
        seed: the order of epoch ``e`` follows from ``(seed, e)``.
        expected_N: how often an epoch shows each row on average (:func:`canopy.data.loading.class_balance.expected_copies`);
            None shows each once.

    An epoch takes ``len(rows_N) // batch_size`` steps (at least one); which rows it leaves out changes
    from epoch to epoch. Fewer rows than one batch are repeated to fill it. With ``expected_N`` its sum, cut
    to a whole number, takes the place of ``len(rows_N)``: weighted sampling keeps an epoch's length, repeat
    factors make it longer, by as much as they add, in every epoch alike.
    """

    rows_N: NDArray[np.int64]
    batch_size: int
    seed: int
    expected_N: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        assert len(self.rows_N) > 0, "nothing to train on"
        assert self.expected_N is None or self.expected_N.shape == self.rows_N.shape

    @property
    def steps_per_epoch(self) -> int:
        """Steps that every rank takes in an epoch."""
        shown = len(self.rows_N) if self.expected_N is None else total_copies(self.expected_N)
        return max(1, shown // self.batch_size)

    def epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """The rows that ``epoch`` shows, in its order, at least one batch long."""
        rng = np.random.default_rng([self.seed, epoch])
        shown = self.rows_N
        if self.expected_N is not None:
            shown = np.repeat(self.rows_N, whole_copies(self.expected_N, rng))
        order_N = rng.permutation(shown)
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
