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
