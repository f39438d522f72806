"""Class-balanced sampling: the formulas of the papers by hand, and exact counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from canopy.config import SamplingConfig
from canopy.data.loading.class_balance import (
    epoch_label_counts,
    epoch_length,
    expected_copies,
    rarity_weights,
    repeat_factors,
    round_copies,
)

HAND_NK = np.array([[1, 0, 0], [1, 1, 0], [1, 1, 0], [1, 1, 1], *[[1, 0, 0]] * 12], np.uint8)
"""Label shares 1, 3/16 and 1/16."""


def long_tail(rows: int = 3000, seed: int = 0) -> NDArray[np.uint8]:
    """Labels of shares 0.9 down to 0.003, some rows without any."""
    rng = np.random.default_rng(seed)
    return (rng.random((rows, 6)) < [0.9, 0.4, 0.1, 0.03, 0.01, 0.003]).astype(np.uint8)


def test_repeat_factors_are_lvis_by_hand() -> None:
    factors_N = repeat_factors(HAND_NK, threshold=0.25)
    assert factors_N[0] == 1
    assert factors_N[1] == pytest.approx(np.sqrt(0.25 / (3 / 16)))
    assert factors_N[3] == pytest.approx(2)  # its rarest label counts: sqrt(.25 / (1/16))


def test_weights_are_a_power_of_the_rarest_labels_share() -> None:
    np.testing.assert_allclose(rarity_weights(HAND_NK, 1.0)[[0, 1, 3]], [1, 16 / 3, 16])
    np.testing.assert_allclose(rarity_weights(HAND_NK, 0.5)[[0, 1, 3]], [1, 4 / np.sqrt(3), 4])
    np.testing.assert_allclose(rarity_weights(HAND_NK, 0.0), 1)


def test_power_one_gives_all_labels_the_same_number_of_draws() -> None:
    """Labels that exclude each other, so that each chip's rarest label is its only one."""
    targets_NK = np.eye(4, dtype=np.uint8)[np.repeat(np.arange(4), [800, 150, 40, 10])]
    copies_N = expected_copies(SamplingConfig(name="weighted", power=1), targets_NK)
    assert copies_N is not None
    np.testing.assert_allclose(copies_N @ targets_NK, 250)
    half_N = expected_copies(SamplingConfig(name="weighted", power=0.5), targets_NK)
    assert half_N is not None
    drawn_K = half_N @ targets_NK
    np.testing.assert_allclose(drawn_K / drawn_K[0], np.sqrt(np.array([800, 150, 40, 10]) / 800))


def test_a_chip_without_labels_is_shown_but_never_more_than_others() -> None:
    targets_NK = np.array([[0, 0], [1, 0], [1, 1], [1, 0]], np.uint8)
    np.testing.assert_allclose(repeat_factors(targets_NK, 0.5), [1, 1, np.sqrt(2), 1])
    np.testing.assert_allclose(rarity_weights(targets_NK, 1), [1, 4 / 3, 4, 4 / 3])
    nothing_NK = np.zeros((5, 2), np.uint8)
    for name in ("repeat_factor", "weighted"):
        copies_N = expected_copies(SamplingConfig.model_validate({"name": name}), nothing_NK)
        assert copies_N is not None
        np.testing.assert_allclose(copies_N, 1)


CONFIGS = [
    SamplingConfig(name="repeat_factor", threshold=0.2),
    SamplingConfig(name="weighted", power=0.5),
    SamplingConfig(name="weighted", power=1.0),
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_counts_are_within_one_of_their_expectation_and_unbiased(config: SamplingConfig) -> None:
    targets_NK = long_tail()
    expected_copies_N = expected_copies(config, targets_NK)
    assert expected_copies_N is not None
    epochs = 400
    drawn_EN = np.stack(
        [round_copies(expected_copies_N, np.random.default_rng([7, e])) for e in range(epochs)]
    )
    assert (np.abs(drawn_EN - expected_copies_N) < 1).all()
    assert (np.abs(drawn_EN.sum(axis=1) - expected_copies_N.sum()) < 1).all()
    assert (drawn_EN.sum(axis=1) >= epoch_length(expected_copies_N)).all()
    # A count is rounded up with probability f, its fraction: its mean over E epochs has variance
    # f (1 - f) / E. Five deviations, over 3,000 chips, are exceeded by chance in one test of 500; rounding
    # always down, always up or to the nearest would be off by up to half a copy, twenty deviations.
    fraction_N = expected_copies_N % 1
    deviation_N = np.sqrt(fraction_N * (1 - fraction_N) / epochs)
    assert (np.abs(drawn_EN.mean(axis=0) - expected_copies_N) <= 5 * deviation_N + 1e-9).all()
    assert not np.array_equal(drawn_EN[0], drawn_EN[1])


def test_weighted_sampling_keeps_the_length_of_an_epoch() -> None:
    for rows in (7, 100, 999):
        expected_copies_N = expected_copies(SamplingConfig(name="weighted", power=0.7), long_tail(rows))
        assert expected_copies_N is not None
        assert epoch_length(expected_copies_N) == rows
        for epoch in range(50):
            assert round_copies(expected_copies_N, np.random.default_rng(epoch)).sum() == rows


def test_counts_of_neighbors_are_independent() -> None:
    """Without the random order, exactly one of two chips with expectation 1/2 would always be drawn."""
    halves_N = np.full(40, 0.5)
    pairs = np.stack([round_copies(halves_N, np.random.default_rng(e))[:2] for e in range(400)])
    together = (pairs.sum(axis=1) != 1).mean()
    assert 0.35 < together < 0.65


def test_uniform_sampling_needs_no_copies() -> None:
    assert expected_copies(SamplingConfig(), long_tail()) is None
    counts_K, rows = epoch_label_counts(long_tail(), None)
    np.testing.assert_array_equal(counts_K, long_tail().sum(axis=0, dtype=np.int64))
    assert rows == 3000


def test_label_counts_are_those_of_the_shown_chips() -> None:
    targets_NK = long_tail()
    for config in CONFIGS:
        expected_copies_N = expected_copies(config, targets_NK)
        assert expected_copies_N is not None
        copies_N = round_copies(expected_copies_N, np.random.default_rng(0))
        counts_K, rows = epoch_label_counts(targets_NK, expected_copies_N)
        assert abs(rows - copies_N.sum()) <= 1
        # Label k's count is a sum of roundings, each off by at most one and right on average.
        drawn_K = copies_N @ targets_NK.astype(np.int64)
        assert (np.abs(counts_K - drawn_K) < 3 * np.sqrt(targets_NK.sum(axis=0) / 4) + 2).all()
        assert counts_K[5] > 2 * targets_NK[:, 5].sum()


def test_labels_of_no_chip_and_of_all_chips_stay_so() -> None:
    targets_NK = np.array([[1, 0, 1]] * 30 + [[1, 0, 0]], np.uint8)
    counts_K, rows = epoch_label_counts(targets_NK, np.array([1.0] * 30 + [0.1]))
    assert (rows, counts_K.tolist()) == (30, [30, 0, 29])


BAD = [{"threshold": 0}, {"threshold": 1.5}, {"power": -0.1}, {"power": 2}, {"name": "balanced"}]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SamplingConfig(**bad)
