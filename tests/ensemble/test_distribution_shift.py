"""Shifts between out-of-fold and test probabilities."""

from __future__ import annotations

import json

import numpy as np
import pytest

from canopy.ensemble.calibrate import Calibration
from canopy.ensemble.distribution_shift import label_shifts, member_shifts

RNG = np.random.default_rng(0)


def test_equal_distributions_have_hardly_any_shift_and_a_moved_one_has_its_own() -> None:
    fitted_NK = RNG.uniform(0, 0.5, (4000, 2))
    test_MK = RNG.uniform([0, 0.1], [0.5, 0.6], (3000, 2))
    shifts = label_shifts(fitted_NK, test_MK, ["same", "moved"])
    assert shifts["same"].ks < shifts["same"].chance < 0.04
    assert shifts["same"].mean_shift == pytest.approx(0, abs=0.01)
    assert shifts["moved"].ks == pytest.approx(0.2, abs=0.03)  # 0.1 of a width of 0.5
    assert shifts["moved"].mean_shift == pytest.approx(0.1, abs=0.01)


def test_distances_that_can_be_counted_by_hand() -> None:
    shifts = label_shifts(np.array([[0.1], [0.2], [0.3], [0.4]]), np.array([[0.15], [0.35]]), ["a"])
    assert shifts["a"].ks == pytest.approx(0.25)
    assert shifts["a"].mean_shift == pytest.approx(0)
    assert label_shifts(np.zeros((5, 1)), np.ones((5, 1)), ["a"])["a"].ks == 1


def test_the_mean_of_fold_models_is_less_extreme_than_one_model() -> None:
    """Three models with independent errors: their mean never reaches 0 or 1."""
    noise_FNK = RNG.normal(0, 2, (3, 2000, 1))
    models = [(1 / (1 + np.exp(-noise_NK))).astype(np.float32) for noise_NK in noise_FNK]
    plain = Calibration("none")
    shifts = member_shifts({"m": plain}, {"m": models[0]}, {"m": models}, ["a"])
    assert shifts.members["m"]["a"].ks > 3 * shifts.members["m"]["a"].chance
    assert shifts.to_json()["widest"] == {"ks": shifts.members["m"]["a"].ks, "member": "m", "label": "a"}
    alone = member_shifts({"m": plain}, {"m": models[0]}, {"m": [models[0]]}, ["a"])
    assert alone.members["m"]["a"].ks == 0
    json.dumps(shifts.to_json(), allow_nan=False)
