"""The comparison of an exported graph with the model: what it calls equal, close and wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.ensemble.worlds import FAST, world

from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.model import Ensemble
from canopy.errors import StageError
from canopy.inference.export.parity import close_to_threshold, compare, require_parity


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    """Thresholds 0.5, 0.5, 0.5, 0.1; the last two labels exclude each other."""
    fitted = fit_ensemble(world(200), FAST)
    thresholds = np.array([0.5, 0.5, 0.5, 0.1], np.float32)
    return dataclasses.replace(fitted, thresholds=thresholds, exclusive=(("some", "rare"),))


def test_equal_predictions_agree(ensemble: Ensemble) -> None:
    probs_NK = np.random.default_rng(0).random((50, 4)).astype(np.float32)
    prediction = (probs_NK, ensemble.decide(probs_NK))
    parity = compare(ensemble, prediction, prediction)
    assert (parity.images, parity.max_difference, parity.differing) == (50, 0.0, 0)
    require_parity("x", parity)


def test_a_decision_may_differ_next_to_the_threshold_only(ensemble: Ensemble) -> None:
    probs_NK = np.array([[0.5, 0.9, 0.9, 0.01], [0.6, 0.9, 0.9, 0.01]], np.float32)
    decisions_NK = ensemble.decide(probs_NK)
    turned_NK = decisions_NK.copy()
    turned_NK[0, 0] ^= 1
    assert compare(ensemble, (probs_NK, decisions_NK), (probs_NK, turned_NK)).differing == 0
    turned_NK[1, 0] ^= 1
    parity = compare(ensemble, (probs_NK, decisions_NK), (probs_NK, turned_NK))
    assert parity.differing == 1
    with pytest.raises(StageError, match="1 of 8 decisions differ"):
        require_parity("x", parity)


def test_a_choice_within_a_group_is_close_where_its_labels_are(ensemble: Ensemble) -> None:
    # 0.5 is as far above 0.5 as 0.1 above 0.1.
    probs_NK = np.array([[0.9, 0.9, 0.5, 0.1], [0.9, 0.9, 0.5, 0.2], [0.9, 0.9, 0.9, 0.1]], np.float32)
    close_NK = close_to_threshold(ensemble, probs_NK, 1e-4)
    assert close_NK.tolist() == [[False, False, True, True], [False] * 4, [False] * 4]


def test_a_difference_of_probability_and_nan_are_refused(ensemble: Ensemble) -> None:
    probs_NK = np.full((3, 4), 0.7, np.float32)
    decisions_NK = ensemble.decide(probs_NK)
    for wrong in (0.7002, np.nan):
        other_NK = probs_NK.copy()
        other_NK[1, 2] = wrong
        parity = compare(ensemble, (probs_NK, decisions_NK), (other_NK, decisions_NK))
        with pytest.raises(StageError, match="predicts otherwise"):
            require_parity("x", parity)
