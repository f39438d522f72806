from __future__ import annotations

import numpy as np

from canopy.data.plan import BatchPlan, rank_slice


def test_an_epoch_uses_each_row_once_and_epochs_differ() -> None:
    plan = BatchPlan(np.arange(100, 150), batch_size=10, seed=3)
    assert plan.steps_per_epoch == 5
    first, second = np.concatenate(plan.batches(0, 5)), np.concatenate(plan.batches(5, 10))
    assert sorted(first) == sorted(second) == list(range(100, 150))
    assert not np.array_equal(first, second)


def test_a_remainder_changes_from_epoch_to_epoch() -> None:
    plan = BatchPlan(np.arange(25), batch_size=10, seed=0)
    missing = [set(range(25)) - set(np.concatenate(plan.batches(2 * e, 2 * e + 2))) for e in range(6)]
    assert all(len(m) == 5 for m in missing)
    assert len(set.union(*missing)) > 5


def test_batches_are_a_function_of_step_alone() -> None:
    plan = BatchPlan(np.arange(64), batch_size=8, seed=1)
    whole = plan.batches(0, 24)
    for first, last in ((0, 1), (7, 9), (5, 21)):
        for a, b in zip(plan.batches(first, last), whole[first:last], strict=True):
            np.testing.assert_array_equal(a, b)


def test_fewer_rows_than_a_batch_fill_it() -> None:
    plan = BatchPlan(np.array([4, 9, 2]), batch_size=8, seed=0)
    (batch,) = plan.batches(0, 1)
    assert len(batch) == 8
    assert set(batch) == {2, 4, 9}


def test_rank_slices_cover_everything_once() -> None:
    for size in (0, 1, 7, 64):
        for world in (1, 2, 3, 5):
            parts = [np.arange(size)[rank_slice(size, rank, world)] for rank in range(world)]
            np.testing.assert_array_equal(np.concatenate(parts), np.arange(size))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
