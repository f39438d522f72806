"""Scores of an ensemble: comparisons, F1 by step, and the JSON form."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.ensemble.worlds import FAST, LABELS, world

from canopy import metrics
from canopy.ensemble.evaluate import decide_by_step, measured_scores
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.scores import EnsembleScores, summary_lines
from canopy.errors import PredictionsError
from canopy.metrics.score_card import decision_scores
from canopy.storage.json_fields import JsonField


@pytest.fixture(scope="module")
def scores() -> EnsembleScores:
    members = world(300)
    ensemble = fit_ensemble(members, FAST)
    single = fit_ensemble(members, FAST.model_copy(update={"combination": "best_single"}))
    test = world(400, seed=1)
    arrays = {name: [p.probs_NK] for name, p in test.items()}
    steps = decide_by_step(ensemble, single, arrays)
    probs_NK, decisions_NK = ensemble.predict(arrays)
    np.testing.assert_array_equal(steps.ensemble, decisions_NK)
    np.testing.assert_array_equal(steps.ensemble_half, metrics.decide(probs_NK))
    targets_NK = test["m0"].targets_NK
    assert targets_NK is not None
    found = measured_scores(ensemble, steps, targets_NK, probs_NK, FAST)
    assert found.at_half == decision_scores(
        targets_NK, steps.ensemble_half, LABELS, FAST.bootstrap, FAST.seed
    )
    return found


def test_comparisons_are_differences_of_the_cards_figures(scores: EnsembleScores) -> None:
    assert set(scores.over) == {"single_tuned", "single_half"}
    tuned = np.mean([f1 for f1 in scores.steps["single_tuned"].values() if f1 is not None])
    assert scores.over["single_tuned"]["macro_f1"].value == pytest.approx((scores.macro_f1 or 0) - tuned)
    assert scores.steps["ensemble"] == scores.per_class_f1


def test_the_json_form_reads_back_equal_and_keeps_its_keys(scores: EnsembleScores) -> None:
    content = scores.to_json()
    assert list(content)[-4:] == ["at_half", "over_single_tuned", "over_single_half", "steps"]
    data = json.dumps(content, allow_nan=False).encode()
    field = JsonField.parse(data, "scores.json", PredictionsError, "Restore it.")
    assert EnsembleScores.from_json(field, LABELS.names) == scores


def test_the_summary_has_a_line_at_tuned_thresholds_and_one_at_half(scores: EnsembleScores) -> None:
    tuned, half = summary_lines(scores)
    assert tuned.startswith(f"macro-F1 {scores.macro_f1:.3f}")
    assert tuned.endswith("at its thresholds")
    assert half.endswith("at 0.5")
