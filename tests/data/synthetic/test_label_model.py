"""The label statistics, the noise on them, the posterior, the best reachable F1."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from canopy.config import GenerateConfig
from canopy.data.synthetic import label_model as world
from canopy.data.synthetic.label_model import (
    GROUND_COLUMNS,
    LABELS,
    WEATHER_COLUMNS,
    ceiling_decisions,
    draw_labels,
)

ROWS = 30_000
CLOUDY = LABELS.index("cloudy")


@pytest.fixture(scope="module")
def planet() -> world.SyntheticLabels:
    return draw_labels(GenerateConfig(rows=ROWS))


def test_label_set_is_planets_in_alphabetical_order() -> None:
    assert len(LABELS) == 17
    assert list(LABELS.names) == sorted(LABELS.names)


def test_true_rates_are_planets_within_sampling_error(planet: world.SyntheticLabels) -> None:
    rates_K = np.array([world.PLANET_COUNTS[name] / world.PLANET_CHIPS for name in LABELS.names])
    error_K = np.sqrt(rates_K * (1 - rates_K) / ROWS)
    assert (np.abs(planet.true_NK.mean(0) - rates_K) < 4 * error_K + 5e-5).all()


def test_labels_depend_on_each_other_as_on_the_real_chips(planet: world.SyntheticLabels) -> None:
    y = {name: planet.true_NK[:, k] == 1 for k, name in enumerate(LABELS.names)}
    # Shares on Planet's chips, in the comments; the copula holds pairs, so a few points of play.
    assert 0.70 < y["road"][y["habitation"]].mean() < 0.85  # 0.76
    assert 0.68 < y["agriculture"][y["road"]].mean() < 0.82  # 0.75
    assert 0.67 < y["agriculture"][y["cultivation"]].mean() < 0.83  # 0.75
    assert 0.60 < y["water"][y["artisinal_mine"]].mean() < 0.95  # 0.87
    assert 0.30 < y["road"][y["selective_logging"]].mean() < 0.60  # 0.45
    for name in ("selective_logging", "blooming", "slash_burn", "blow_down"):
        assert y["primary"][y[name]].mean() > 0.98  # 1.00


def test_correlations_need_little_correction() -> None:
    matrix = world.correlation_matrix()
    assert np.linalg.eigvalsh(matrix).min() > 0
    for (one, other), value in world.CORRELATIONS.items():
        got = matrix[world.GROUND.index(one), world.GROUND.index(other)]
        assert abs(got - value) < 0.15, (one, other)


@pytest.mark.parametrize("noise", [(0.0, 0.0), (0.04, 0.002), (0.3, 0.02)])
def test_one_weather_and_cloudy_alone_also_when_noisy(noise: tuple[float, float]) -> None:
    table = draw_labels(GenerateConfig(rows=8000, miss_rate=noise[0], spurious_rate=noise[1]))
    for labels_NK in (table.true_NK, table.written_NK):
        assert (labels_NK[:, WEATHER_COLUMNS].sum(1) == 1).all()
        assert (labels_NK[labels_NK[:, CLOUDY] == 1].sum(1) == 1).all()
    if noise == (0.0, 0.0):
        np.testing.assert_array_equal(table.true_NK, table.written_NK)


def test_noise_is_as_strong_as_configured() -> None:
    config = GenerateConfig(rows=ROWS, miss_rate=0.1, spurious_rate=0.01, seed=3)
    table = draw_labels(config)
    true_NG, written_NG = table.true_NK[:, GROUND_COLUMNS] == 1, table.written_NK[:, GROUND_COLUMNS] == 1
    assert (~written_NG)[true_NG].mean() == pytest.approx(0.1, abs=0.004)
    land = table.true_NK[:, CLOUDY] == 0
    wanted = world.spurious_rates(config)[GROUND_COLUMNS]
    assert wanted.mean() == pytest.approx(0.01)
    for g, rate in enumerate(wanted):
        absent = land & ~true_NG[:, g]
        error = np.sqrt(rate / absent.sum())
        assert written_NG[absent, g].mean() == pytest.approx(rate, abs=4 * error)
    swapped = (table.true_NK[:, WEATHER_COLUMNS] != table.written_NK[:, WEATHER_COLUMNS]).any(1)
    assert swapped.mean() == pytest.approx(0.1, abs=0.007)


def test_oracle_is_calibrated_against_the_written_labels() -> None:
    table = draw_labels(GenerateConfig(rows=ROWS, min_rate=0.05, miss_rate=0.15, spurious_rate=0.02, seed=1))
    for k, name in enumerate(LABELS.names):
        probs_N, written_N = table.oracle_NK[:, k].astype(float), table.written_NK[:, k]
        for value in np.unique(probs_N):  # the scene speaks in a few distinct values
            group = probs_N == value
            error = np.sqrt(value * (1 - value) / group.sum())
            assert abs(written_N[group].mean() - value) <= 4.5 * error + 1e-6, (name, value)


def test_rows_do_not_depend_on_how_many_there_are() -> None:
    few, many = (draw_labels(GenerateConfig(rows=rows, seed=5)) for rows in (100, 700))
    for name in ("true_NK", "written_NK", "oracle_NK"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[:100])
    other = draw_labels(GenerateConfig(rows=100, seed=6))
    assert (other.true_NK != few.true_NK).any()


@pytest.mark.parametrize("seed", range(10))
def test_min_rate_fills_a_fifth_of_a_demo_sized_set(seed: int) -> None:
    table = draw_labels(GenerateConfig(rows=6000, min_rate=0.03, seed=seed))
    # A stratified fifth holds a fifth of each label's positives, give or take one.
    assert table.written_NK.sum(0).min() >= 5 * 26


def test_min_rate_raises_only_what_is_rarer() -> None:
    plain, raised = world.label_rates(), world.label_rates(0.06)
    common = (plain >= 0.06) & (np.arange(17) != LABELS.index("clear"))
    np.testing.assert_allclose(raised[common], plain[common])
    np.testing.assert_allclose(raised[plain < 0.06], 0.06)
    assert raised[WEATHER_COLUMNS].sum() == pytest.approx(1)
    table = draw_labels(GenerateConfig(rows=20_000, min_rate=0.2))
    assert (table.true_NK.mean(0) > 0.18).all()


def expected_f1(probs: np.ndarray, decisions: np.ndarray) -> float:
    return float(2 * (probs * decisions).sum() / max(probs.sum() + decisions.sum(), 1e-12))


def test_ceiling_decisions_beat_every_other_choice() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        probs_NK = rng.beta(0.5, 1.5, (9, 2))
        best_NK = ceiling_decisions(probs_NK)
        for k in range(2):
            baselines = (np.array(bits) for bits in itertools.product([0, 1], repeat=9))
            best = max(expected_f1(probs_NK[:, k], baseline) for baseline in baselines)
            assert expected_f1(probs_NK[:, k], best_NK[:, k]) == pytest.approx(best)
            # The rule that it follows: the cut lies at half the best score.
            np.testing.assert_array_equal(best_NK[:, k], probs_NK[:, k] > best / 2)
        pooled = ceiling_decisions(probs_NK, "micro")
        assert expected_f1(probs_NK, pooled) >= expected_f1(probs_NK, best_NK) - 1e-12


def test_ceiling_of_a_label_that_never_occurs_is_silence() -> None:
    assert not ceiling_decisions(np.zeros((5, 3))).any()


def test_ceiling_is_what_the_noise_leaves() -> None:
    """With misses only, the best F1 is that of saying what is there: recall 1, precision 1 - miss."""
    table = draw_labels(GenerateConfig(rows=ROWS, miss_rate=0.1, spurious_rate=0.0))
    road = LABELS.index("road")
    decided_N = ceiling_decisions(table.oracle_NK)[:, road]
    np.testing.assert_array_equal(decided_N, table.true_NK[:, road] == 1)
    assert expected_f1(table.oracle_NK[:, road], decided_N) == pytest.approx(1.8 / 1.9, abs=1e-6)
