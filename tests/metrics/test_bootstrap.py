"""Bootstrap intervals have the spread and coverage of fresh samples."""

from __future__ import annotations

import numpy as np
import pytest
from tests.metrics.draws import draw

from canopy import metrics
from canopy.metrics import Counts, bootstrap


@pytest.mark.parametrize("rows", [400, 20000])
def test_bootstrap_spread_is_that_of_fresh_samples(rows: int) -> None:
    targets_NK, probs_NK = draw(2, rows=rows, classes=5)
    counts = bootstrap.resampled_counts(targets_NK, metrics.decide(probs_NK), resamples=800)
    fresh = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        drawn = rng.integers(0, rows, rows)
        fresh.append(metrics.macro_f1(Counts.of(targets_NK[drawn], metrics.decide(probs_NK)[drawn])))
    assert np.std(metrics.macro_f1(counts)) == pytest.approx(np.std(fresh), rel=0.2)
    assert np.mean(metrics.macro_f1(counts)) == pytest.approx(np.mean(fresh), abs=3 * np.std(fresh))


def test_intervals_have_their_coverage() -> None:
    targets_NK, probs_NK = draw(3, rows=60000, classes=4)
    decided_NK = metrics.decide(probs_NK)
    truth = metrics.macro_f1(Counts.of(targets_NK, decided_NK))
    hits = 0
    for start in range(0, 60000, 500):
        part = slice(start, start + 500)
        drawn = metrics.macro_f1(bootstrap.resampled_counts(targets_NK[part], decided_NK[part], 300))
        found = bootstrap.interval(0.0, drawn)
        hits += found.low <= truth <= found.high
    assert 0.88 <= hits / 120 <= 1.0


def test_paired_difference_of_equal_decisions_is_exactly_zero() -> None:
    targets_NK, probs_NK = draw(4)
    decided_NK = metrics.decide(probs_NK)
    difference = bootstrap.paired_difference(targets_NK, decided_NK, decided_NK)
    assert (difference.low, difference.value, difference.high) == (0, 0, 0)
    worse = bootstrap.paired_difference(targets_NK, decided_NK, 1 - decided_NK)
    assert worse.low > 0


def test_map_interval_holds_the_value_and_is_omitted_where_too_costly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    targets_NK, probs_NK = draw(5)
    found = bootstrap.map_interval(targets_NK, probs_NK)
    assert found.low < found.value < found.high
    monkeypatch.setattr(bootstrap, "MAP_BUDGET", 10)
    assert np.isnan(bootstrap.map_interval(targets_NK, probs_NK).low)


def test_columns_have_the_intervals_of_each_alone() -> None:
    resampled_BK = np.random.default_rng(0).random((300, 1100))
    resampled_BK[::7, ::5] = np.nan  # classes that some resamples do not draw
    resampled_BK[:, 3] = np.nan
    found = bootstrap.column_intervals(resampled_BK)
    alone = [bootstrap.interval(0, column) for column in resampled_BK.T]
    assert [str(one) for one in found] == [str(one) for one in alone], "to the bit"


def test_several_statistics_are_compared_on_the_same_resamples() -> None:
    rng = np.random.default_rng(1)
    targets_NK, a_NK, b_NK = (rng.random((3, 200, 7)) < 0.4).astype(np.uint8)
    figures = {"macro": metrics.macro_f1, "micro": metrics.micro_f1}
    found = bootstrap.paired_differences(targets_NK, a_NK, b_NK, figures, resamples=100)
    for name, figure in figures.items():
        assert found[name] == bootstrap.paired_difference(
            targets_NK, a_NK, b_NK, statistic=figure, resamples=100
        )
