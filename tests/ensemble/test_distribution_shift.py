from __future__ import annotations

import json

import numpy as np
import pytest

from canopy.ensemble.calibrate import Calibration
from canopy.ensemble.distribution_shift import distribution_gap, member_gaps

RNG = np.random.default_rng(0)


def test_one_distribution_has_next_to_no_gap_and_a_shifted_one_has_its_shift() -> None:
    fitted_NK = RNG.uniform(0, 0.5, (4000, 2))
    test_MK = RNG.uniform([0, 0.1], [0.5, 0.6], (3000, 2))
    gaps = distribution_gap(fitted_NK, test_MK, ["same", "moved"])
    assert gaps["same"]["ks"] < gaps["same"]["chance"] < 0.04
    assert gaps["same"]["mean_shift"] == pytest.approx(0, abs=0.01)
    assert gaps["moved"]["ks"] == pytest.approx(0.2, abs=0.03)  # 0.1 of a width of 0.5
    assert gaps["moved"]["mean_shift"] == pytest.approx(0.1, abs=0.01)


def test_distances_that_can_be_counted_by_hand() -> None:
    gaps = distribution_gap(np.array([[0.1], [0.2], [0.3], [0.4]]), np.array([[0.15], [0.35]]), ["a"])
    assert gaps["a"]["ks"] == pytest.approx(0.25)
    assert gaps["a"]["mean_shift"] == pytest.approx(0)
    assert distribution_gap(np.zeros((5, 1)), np.ones((5, 1)), ["a"])["a"]["ks"] == 1


def test_the_mean_of_fold_models_is_more_timid_than_one_and_that_is_seen() -> None:
    """Three models that are right together and wrong apart: their mean never reaches the ends."""
    noise_FNK = RNG.normal(0, 2, (3, 2000, 1))
    models = [(1 / (1 + np.exp(-noise_NK))).astype(np.float32) for noise_NK in noise_FNK]
    plain = Calibration("none")
    gaps = member_gaps({"m": plain}, {"m": models[0]}, {"m": models}, ["a"])
    assert gaps["members"]["m"]["a"]["ks"] > 3 * gaps["members"]["m"]["a"]["chance"]
    assert gaps["widest"] == {"ks": gaps["members"]["m"]["a"]["ks"], "member": "m", "label": "a"}
    alone = member_gaps({"m": plain}, {"m": models[0]}, {"m": [models[0]]}, ["a"])
    assert alone["members"]["m"]["a"]["ks"] == 0
    json.dumps(gaps, allow_nan=False)
