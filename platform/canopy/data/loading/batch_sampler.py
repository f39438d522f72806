"""Decides which chips make up each global batch of a training.

The batches are a pure function of the arguments. So all ranks take the same number of steps, an interrupted
run resumes at any step, and the batch of a step is the same for any number of ranks (rank r takes slice r
of it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canopy.data.loading.class_balance import epoch_length, round_copies


@dataclass(frozen=True)
class BatchSampler:
    """The global batches of a whole training.

    Args:
        rows_N: row numbers in the catalogue to train on, at least one.
        batch_size: global batch size.
        seed: base seed; the order of epoch ``e`` is drawn from ``(seed, e)``.
        expected_copies_N: mean number of times that an epoch shows each row
            (:func:`canopy.data.loading.class_balance.expected_copies`); None shows each row once.

    An epoch has ``len(rows_N) // batch_size`` steps, at least one. The rows that do not fill a batch are left
    out; they differ from epoch to epoch. Fewer rows than one batch are repeated to fill it. With
    ``expected_copies_N``, the integer part of its sum replaces ``len(rows_N)``: weighted sampling keeps the
    length of an epoch, repeat factors lengthen every epoch by the same number of rows.
    """

    rows_N: NDArray[np.int64]
    batch_size: int
    seed: int
    expected_copies_N: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        assert len(self.rows_N) > 0, "nothing to train on"
        assert self.expected_copies_N is None or self.expected_copies_N.shape == self.rows_N.shape

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in an epoch, the same on all ranks."""
        shown = len(self.rows_N) if self.expected_copies_N is None else epoch_length(self.expected_copies_N)
        return max(1, shown // self.batch_size)

    def epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """The rows (n,) that ``epoch`` shows, in order; at least one batch."""
        rng = np.random.default_rng([self.seed, epoch])
        shown = self.rows_N
        if self.expected_copies_N is not None:
            shown = np.repeat(self.rows_N, round_copies(self.expected_copies_N, rng))
        order_N = rng.permutation(shown)
        return np.resize(order_N, self.batch_size) if len(order_N) < self.batch_size else order_N

    def batches(self, first_step: int, stop_step: int) -> list[NDArray[np.int64]]:
        """The rows of the global batches of steps ``first_step`` to ``stop_step`` - 1, (batch_size,) each."""
        found: list[NDArray[np.int64]] = []
        epoch, order_N = -1, np.empty(0, np.int64)
        for step in range(first_step, stop_step):
            wanted, position = divmod(step, self.steps_per_epoch)
            if wanted != epoch:
                epoch, order_N = wanted, self.epoch_order(wanted)
            found.append(order_N[position * self.batch_size : (position + 1) * self.batch_size])
        return found

    def step_rng(self, step: int) -> np.random.Generator:
        """The random generator for everything that is drawn for the global batch of ``step``."""
        return np.random.default_rng([self.seed, 1 + step, 0xC40])


def rank_slice(size: int, rank: int, world_size: int) -> slice:
    """Contiguous share of ``size`` items for ``rank`` < ``world_size``; shares differ by at most one item."""
    assert 0 <= rank < world_size
    return slice(size * rank // world_size, size * (rank + 1) // world_size)
