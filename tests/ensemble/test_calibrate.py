"""Calibration curves undo known distortions, keep the ranking and round-trip through JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from canopy import metrics
from canopy.ensemble import calibrate
from canopy.ensemble.calibrate import (
    BINS,
    CALIBRATION_KINDS,
    CENTERS,
    Calibration,
    bin_codes,
    bin_counts,
    fit_calibration,
)
from canopy.ensemble.logistic import sigmoid
from canopy.errors import PredictionsError
from canopy.storage.json_fields import JsonField


@pytest.mark.parametrize(
    ("kind", "slope", "shift", "tolerance"),
    [
        ("temperature", 0.4, 0.0, 0.02),
        ("platt", 0.5, -1.0, 0.03),
        ("beta", 0.5, -1.0, 0.03),
        ("isotonic", 0.5, -1.0, 0.04),
    ],
)
def test_calibration_undoes_a_known_distortion(
    kind: str, slope: float, shift: float, tolerance: float
) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 3, (40000, 1)).astype(np.float32)
    true = sigmoid(slope * z + shift)
    targets = (rng.random(z.shape) < true).astype(np.uint8)
    given = sigmoid(z).astype(np.float32)
    curve = fit_calibration(kind, bin_counts(bin_codes(given), targets))  # type: ignore[arg-type]
    assert np.abs(curve.apply(given) - true).mean() < tolerance
    assert metrics.calibration_error(targets, curve.apply(given))[0] < 0.015
    np.testing.assert_allclose(curve.apply(sigmoid(CENTERS)[:, None])[:, 0], curve.at_centers()[0], atol=1e-5)


def test_isotonic_is_monotone_and_keeps_the_ranking() -> None:
    rng = np.random.default_rng(1)
    given = rng.random((500, 1)).astype(np.float32)
    targets = (rng.random((500, 1)) < given).astype(np.uint8)
    curve = fit_calibration("isotonic", bin_counts(bin_codes(given), targets))
    assert (np.diff(curve.apply(np.sort(given, axis=0))[:, 0]) >= 0).all()


@pytest.mark.parametrize("kind", ["none", "temperature", "platt", "beta", "isotonic"])
@pytest.mark.parametrize("value", [0, 1])
def test_a_class_of_one_kind_keeps_its_probabilities(kind: str, value: int) -> None:
    given = np.linspace(0, 1, 30, dtype=np.float32)[:, None]
    curve = fit_calibration(kind, bin_counts(bin_codes(given), np.full((30, 1), value, np.uint8)))  # type: ignore[arg-type]
    np.testing.assert_allclose(curve.apply(given), given, atol=1e-5)


def test_bins_hold_every_row_once_and_extremes_fit() -> None:
    given = np.array([[0.0], [1.0], [0.5], [1e-30]], np.float32)
    assert bin_codes(given)[:, 0].tolist() == [0, BINS - 1, BINS // 2, 0]
    counts = bin_counts(bin_codes(given), np.array([[1], [1], [0], [0]], np.uint8))
    assert counts.sum() == 4
    assert counts[1].sum() == 2


@pytest.mark.parametrize("kind", CALIBRATION_KINDS)
def test_curves_round_trip_through_json(kind: str) -> None:
    rng = np.random.default_rng(0)
    given = rng.random((400, 2)).astype(np.float32)
    targets = (rng.random((400, 2)) < given**2).astype(np.uint8)
    curve = fit_calibration(kind, bin_counts(bin_codes(given), targets))  # type: ignore[arg-type]
    data = json.dumps(curve.to_json(["a", "b"])).encode()
    read = Calibration.from_json(JsonField.parse(data, "f", PredictionsError, "Restore it."), ["a", "b"])
    np.testing.assert_array_equal(read.apply(given), curve.apply(given))


def test_empty_bins_are_skipped_with_many_curves_without_changing_the_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    given = np.round(rng.random((40, 30)), 1).astype(np.float32)
    targets = (rng.random((40, 30)) < given).astype(np.uint8)
    counts = bin_counts(bin_codes(given), targets)
    for kind in CALIBRATION_KINDS:
        monkeypatch.setattr(calibrate, "MANY_CURVES", 4096)
        whole = fit_calibration(kind, counts).apply(given)
        monkeypatch.setattr(calibrate, "MANY_CURVES", 1)
        np.testing.assert_allclose(fit_calibration(kind, counts).apply(given), whole, atol=1e-6)


def test_isotonic_curves_of_a_single_filled_bin_equal_the_general_case() -> None:
    counts = np.zeros((2, 1, BINS))
    counts[:, 0, 100] = 7, 3
    curve = fit_calibration("isotonic", counts)
    p = sigmoid(CENTERS[100])
    assert curve.at_centers()[0] == pytest.approx((3 + 10 * p) / 20)
