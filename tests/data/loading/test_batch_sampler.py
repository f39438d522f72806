"""Batches of an epoch: order, length, class-balanced sampling."""

from __future__ import annotations

import numpy as np
import pytest

from canopy.config import SamplingConfig
from canopy.data.loading.batch_sampler import BatchSampler, rank_slice
from canopy.data.loading.class_balance import expected_copies


def test_an_epoch_uses_each_row_once_and_epochs_differ() -> None:
    sampler = BatchSampler(np.arange(100, 150), batch_size=10, seed=3)
    assert sampler.steps_per_epoch == 5
    first, second = np.concatenate(sampler.batches(0, 5)), np.concatenate(sampler.batches(5, 10))
    assert sorted(first) == sorted(second) == list(range(100, 150))
    assert not np.array_equal(first, second)


def test_the_remainder_differs_between_epochs() -> None:
    sampler = BatchSampler(np.arange(25), batch_size=10, seed=0)
    missing = [set(range(25)) - set(np.concatenate(sampler.batches(2 * e, 2 * e + 2))) for e in range(6)]
    assert all(len(m) == 5 for m in missing)
    assert len(set.union(*missing)) > 5


def test_batches_are_a_function_of_step_alone() -> None:
    sampler = BatchSampler(np.arange(64), batch_size=8, seed=1)
    whole = sampler.batches(0, 24)
    for first, last in ((0, 1), (7, 9), (5, 21)):
        for a, b in zip(sampler.batches(first, last), whole[first:last], strict=True):
            np.testing.assert_array_equal(a, b)


def test_fewer_rows_than_a_batch_fill_it() -> None:
    sampler = BatchSampler(np.array([4, 9, 2]), batch_size=8, seed=0)
    (batch,) = sampler.batches(0, 1)
    assert len(batch) == 8
    assert set(batch) == {2, 4, 9}


def test_rank_slices_cover_everything_once() -> None:
    for size in (0, 1, 7, 64):
        for world_size in (1, 2, 3, 5):
            parts = [np.arange(size)[rank_slice(size, rank, world_size)] for rank in range(world_size)]
            np.testing.assert_array_equal(np.concatenate(parts), np.arange(size))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


WEIGHTED = [SamplingConfig(name="repeat_factor", threshold=0.3), SamplingConfig(name="weighted", power=1)]


def sampled(config: SamplingConfig, rows: int = 200, batch_size: int = 16, seed: int = 4) -> BatchSampler:
    rng = np.random.default_rng(0)
    targets_NK = (rng.random((rows, 4)) < [0.8, 0.3, 0.05, 0.02]).astype(np.uint8)
    return BatchSampler(np.arange(1000, 1000 + rows), batch_size, seed, expected_copies(config, targets_NK))


def test_uniform_sampling_does_not_change_the_order() -> None:
    plain = BatchSampler(np.arange(1000, 1200), 16, 4)
    # the order of a plain permutation
    order_N = np.random.default_rng([4, 3]).permutation(np.arange(1000, 1200))
    np.testing.assert_array_equal(plain.epoch_order(3), order_N)
    np.testing.assert_array_equal(sampled(SamplingConfig()).epoch_order(3), order_N)


@pytest.mark.parametrize("config", WEIGHTED, ids=str)
def test_a_sampled_epoch_shows_the_expected_copies(config: SamplingConfig) -> None:
    sampler = sampled(config)
    assert sampler.expected_copies_N is not None
    for epoch in range(20):
        shown_N = np.bincount(sampler.epoch_order(epoch) - 1000, minlength=200)
        assert (np.abs(shown_N - sampler.expected_copies_N) < 1).all()
        assert sampler.steps_per_epoch == int(sampler.expected_copies_N.sum() + 1e-6) // 16
        steps = sampler.batches(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
        assert {len(batch) for batch in steps} == {16}
    assert sampler.expected_copies_N.max() > 3


@pytest.mark.parametrize("config", WEIGHTED, ids=str)
def test_batches_deliver_the_expected_copies(config: SamplingConfig) -> None:
    """Up to the remainder that fills no batch in each epoch, and in proportion over many epochs."""
    sampler, epochs = sampled(config), 400
    assert sampler.expected_copies_N is not None
    steps, counts = sampler.steps_per_epoch, []
    for epoch in range(epochs):
        rows = np.concatenate(sampler.batches(epoch * steps, (epoch + 1) * steps))
        counts.append(np.bincount(rows - 1000, minlength=200))
        assert (counts[-1] < sampler.expected_copies_N + 1).all()
        assert 0 <= sampler.expected_copies_N.sum() - counts[-1].sum() < 16
    expected_copies_N = sampler.expected_copies_N * steps * 16 / sampler.expected_copies_N.sum()
    # the standard deviation of an epoch's count is below 1, that of the mean of 400 epochs below 1/20
    np.testing.assert_array_less(np.abs(np.mean(counts, 0) - expected_copies_N), 4 / 20)


def test_repeat_factors_lengthen_the_epoch_and_weights_do_not() -> None:
    repeated, weighted, plain = sampled(WEIGHTED[0]), sampled(WEIGHTED[1]), sampled(SamplingConfig())
    assert plain.steps_per_epoch == weighted.steps_per_epoch == 12
    assert repeated.steps_per_epoch > 12


@pytest.mark.parametrize("config", WEIGHTED, ids=str)
def test_sampled_epochs_differ_and_are_reproducible(config: SamplingConfig) -> None:
    sampler, again, other = sampled(config), sampled(config), sampled(config, seed=5)
    steps = sampler.steps_per_epoch
    counts = [np.bincount(sampler.epoch_order(e) - 1000, minlength=200) for e in range(3)]
    assert not np.array_equal(counts[0], counts[1])
    assert not np.array_equal(counts[1], counts[2])
    whole = sampler.batches(0, 3 * steps)
    for first, last in ((0, 2), (steps - 1, steps + 1), (2 * steps + 1, 3 * steps)):
        for a, b in zip(again.batches(first, last), whole[first:last], strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(np.concatenate(other.batches(0, steps)), np.concatenate(whole[:steps]))


def test_a_sampled_set_smaller_than_a_batch_fills_it() -> None:
    (batch,) = sampled(WEIGHTED[1], rows=6, batch_size=16).batches(0, 1)
    assert len(batch) == 16
