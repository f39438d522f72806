"""The fitted ensemble as torch layers: the same numbers as the ensemble itself, for every kind of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.ensemble.worlds import FAST, LABELS, probs, world

from canopy.config import EnsembleConfig
from canopy.ensemble.calibrate import CALIBRATION_KINDS, Calibration
from canopy.ensemble.combination import COMBINATION_KINDS
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.model import Ensemble, decide
from canopy.inference.export.ensemble_layers import (
    CombinationLayer,
    DecisionLayer,
    PiecewiseLinear,
    calibration_layer,
)


def through_layers(
    ensemble: Ensemble, members: dict[str, NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """What the layers make of the members' probabilities."""
    calibrated = [
        calibration_layer(calibration)(torch.from_numpy(members[name]))
        for name, calibration in zip(ensemble.members, ensemble.calibrations, strict=True)
    ]
    combination = CombinationLayer(ensemble.combination, range(len(ensemble.members)))
    probs_NK = calibration_layer(ensemble.recalibration)(combination(calibrated))
    groups = [[LABELS.index(name) for name in group] for group in ensemble.exclusive]
    return probs_NK.numpy(), DecisionLayer(ensemble.thresholds, groups)(probs_NK).numpy()


def kinds() -> list[Any]:
    """Every combination with every calibration; without the slow ones, each of both occurs."""
    return [
        pytest.param(
            combination,
            calibration,
            marks=() if (m + k) % len(CALIBRATION_KINDS) == 0 else pytest.mark.slow,
        )
        for m, combination in enumerate(COMBINATION_KINDS)
        for k, calibration in enumerate(CALIBRATION_KINDS)
    ]


@pytest.mark.parametrize(("combination", "calibration"), kinds())
def test_layers_give_the_ensembles_probabilities_and_decisions(combination: str, calibration: str) -> None:
    settings = {
        **FAST.model_dump(),
        "combination": combination,
        "calibration": calibration,
        "exclusive": ("some, rare",),
    }
    ensemble = fit_ensemble(world(300), EnsembleConfig.model_validate(settings))
    members = probs(world(200, seed=3))
    for edge, value in enumerate((0.0, 1.0, 1e-7, 1 - 1e-7, 0.5)):
        for array in members.values():
            array[edge] = value
    expected_NK, decided_NK = ensemble.predict(members)
    got_NK, got_decided_NK = through_layers(ensemble, members)
    assert got_NK.dtype == np.float32
    np.testing.assert_allclose(got_NK, expected_NK, atol=3e-5)  # stacks amplify the last bit of a member
    away = np.abs(expected_NK - ensemble.thresholds) > 1e-5
    away[:, 2:] &= away[:, 2:].all(axis=1, keepdims=True)  # the two compete
    np.testing.assert_array_equal(got_decided_NK[away], decided_NK[away])
    assert away.mean() > 0.8
    assert 0 < decided_NK.mean() < 1


def test_a_curve_is_constant_beyond_its_ends_and_steep_between_close_knots() -> None:
    curves = [
        (np.array([0.2]), np.array([0.7])),
        (np.array([0.1, 0.1 + 1e-9, 0.9]), np.array([0.0, 0.8, 0.9])),
        (np.array([0.0, 1.0]), np.array([0.0, 1.0])),
    ]
    x_N = np.array([0, 0.1, 0.1000001, 0.5, 0.9, 1], np.float32)
    got_NK = PiecewiseLinear(curves)(torch.from_numpy(np.tile(x_N[:, None], (1, 3)))).numpy()
    for k, curve in enumerate(curves):
        np.testing.assert_allclose(got_NK[:, k], np.interp(x_N, *curve), atol=1e-6)


def test_identity_changes_no_bit() -> None:
    same = calibration_layer(Calibration("none", np.tile((1.0, 1.0, 0.0), (2, 1))))
    probs_NK = torch.rand(5, 2)
    assert torch.equal(same(probs_NK), probs_NK)


def test_a_label_that_is_never_predicted_stays_so_outside_a_group() -> None:
    thresholds_K = np.array([0.5, 2.0, 0.5, 0.1], np.float32)
    probs_NK = np.array([[0.5, 1.0, 0.6, 0.3], [0.49, 1.0, 0.9, 0.05]], np.float32)
    got_NK = DecisionLayer(thresholds_K, [(2, 3)])(torch.from_numpy(probs_NK)).numpy()
    np.testing.assert_array_equal(got_NK, decide(probs_NK, thresholds_K, [(2, 3)]))
    assert got_NK.tolist() == [[1, 0, 0, 1], [0, 0, 1, 0]]
