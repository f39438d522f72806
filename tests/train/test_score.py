from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from canopy.train.score import best_f1, gathered, selection_scores, sigmoid


def test_best_f1_is_the_maximum_over_all_thresholds() -> None:
    rng = np.random.default_rng(0)
    targets_NK = (rng.random((200, 4)) < [0.5, 0.1, 0.02, 0]).astype(np.uint8)
    probs_NK = np.round(rng.random((200, 4)) * 0.5 + targets_NK * 0.3, 2).astype(np.float32)
    got_K = best_f1(targets_NK, probs_NK)
    for k in range(3):
        cuts = np.unique(probs_NK[:, k])
        want = max(f1_score(targets_NK[:, k], probs_NK[:, k] >= cut) for cut in cuts)
        assert got_K[k] == pytest.approx(want, abs=1e-9)
    assert np.isnan(got_K[3])


def test_rows_come_back_in_the_order_that_was_asked_for() -> None:
    rows = np.array([7, 3, 9])
    logits = np.array([[3.0], [7.0], [9.0]], np.float32)
    np.testing.assert_array_equal(gathered((np.array([3, 7, 9]), logits), rows)[:, 0], rows)


def test_a_lost_or_repeated_row_is_our_bug() -> None:
    for seen in ([3, 7], [3, 7, 7], [3, 7, 8]):
        with pytest.raises(AssertionError, match="lost or repeated"):
            gathered((np.array(seen), np.zeros((len(seen), 1), np.float32)), np.array([7, 3, 9]))


def test_selection_follows_the_chosen_score() -> None:
    rng = np.random.default_rng(1)
    targets_NK = (rng.random((100, 3)) < 0.3).astype(np.uint8)
    logits_NK = rng.normal(size=(100, 3)).astype(np.float32)
    scores = selection_scores(targets_NK, logits_NK, "map")
    assert scores["score"] == scores["val_map"] != scores["val_macro_f1"]
    assert selection_scores(targets_NK, logits_NK, "macro_f1")["score"] == scores["val_macro_f1"]


def test_sigmoid_survives_extremes() -> None:
    np.testing.assert_array_equal(sigmoid(np.array([[-1e4, 0, 1e4]], np.float32)), [[0, 0.5, 1]])
