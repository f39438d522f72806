"""Hashes, folds and samples depend on ids alone."""

from __future__ import annotations

import numpy as np

from canopy.predictions.hash_sampling import folds_of, hash_ids, sample_of


def test_folds_depend_on_ids_alone_and_spread_rare_positives() -> None:
    rng = np.random.default_rng(0)
    ids = np.array([f"chip {n}" for n in range(1000)])
    targets = (rng.random((1000, 3)) < [0.6, 0.1, 0.012]).astype(np.uint8)
    folds = folds_of(ids, targets, 5)
    order = rng.permutation(1000)
    np.testing.assert_array_equal(folds_of(ids[order], targets[order], 5), folds[order])
    rare = np.bincount(folds[targets[:, 2] > 0], minlength=5)
    assert rare.max() - rare.min() <= 1
    assert np.bincount(folds).tolist() == [200] * 5
    assert (folds_of(ids, targets, 5, seed=1) != folds).any()


def test_hashes_ignore_the_width_of_the_array_and_mix_well() -> None:
    short = hash_ids(np.array(["a", "bb"]))
    wide = hash_ids(np.array(["a", "bb", "x" * 40]))[:2]
    np.testing.assert_array_equal(short, wide)
    many = hash_ids(np.array([f"{n}" for n in range(20000)]))
    assert len(np.unique(many)) == 20000
    assert np.abs(np.bincount((many % np.uint64(16)).astype(int)) / 1250 - 1).max() < 0.12


def test_a_sample_is_the_same_in_any_order_and_part_of_a_larger_one() -> None:
    ids = np.array([f"{n}" for n in range(500)])
    order = np.random.default_rng(0).permutation(500)
    chosen = set(ids[sample_of(ids, 100)].tolist())
    assert len(chosen) == 100
    assert set(ids[order][sample_of(ids[order], 100)].tolist()) == chosen
    assert chosen < set(ids[sample_of(ids, 200)].tolist())
    assert len(sample_of(ids, 1000)) == 500
