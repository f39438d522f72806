from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from torch import nn

from canopy.config import ModelConfig, OptimConfig
from canopy.errors import DataError
from canopy.models.network import build_model
from canopy.train.logits import (
    RowLogits,
    Symmetries,
    best_f1,
    gather_logits,
    logits_to_probs,
    predict_logits,
    selection_scores,
    symmetries,
)


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


def test_gathered_logits_are_in_the_expected_order() -> None:
    rows = np.array([7, 3, 9])
    logits = np.array([[3.0], [7.0], [9.0]], np.float32)
    np.testing.assert_array_equal(gather_logits(RowLogits(np.array([3, 7, 9]), logits), rows)[:, 0], rows)


def test_a_lost_or_repeated_row_fails_an_assertion() -> None:
    for seen in ([3, 7], [3, 7, 7], [3, 7, 8]):
        with pytest.raises(AssertionError, match="lost or repeated"):
            gather_logits(
                RowLogits(np.array(seen), np.zeros((len(seen), 1), np.float32)), np.array([7, 3, 9])
            )


def test_selection_follows_the_chosen_score() -> None:
    rng = np.random.default_rng(1)
    targets_NK = (rng.random((100, 3)) < 0.3).astype(np.uint8)
    logits_NK = rng.normal(size=(100, 3)).astype(np.float32)
    scores = selection_scores(targets_NK, logits_NK, "map")
    assert scores.score == scores.val_map != scores.val_macro_f1
    assert selection_scores(targets_NK, logits_NK, "macro_f1").score == scores.val_macro_f1


def test_rows_without_any_positive_cannot_select() -> None:
    with pytest.raises(DataError, match=r"must hold at least one positive label. Got: none in 5 rows"):
        selection_scores(np.zeros((5, 2), np.uint8), np.zeros((5, 2), np.float32), "map")


@cache
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_model(ModelConfig(backbone="test_resnet", cbam="last"), 4, None).eval()


def chips() -> torch.Tensor:
    return torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(1))


def predicted(images: torch.Tensor, tta: Symmetries) -> NDArray[np.float32]:
    config = OptimConfig()
    return predict_logits(network(), [(np.arange(len(images)), images)], 4, config, tta)[1]


def moved(images: torch.Tensor, turns: int, flip: bool) -> torch.Tensor:
    turned = torch.rot90(images, turns, (2, 3))
    return turned.flip(3) if flip else turned


def test_with_d4_a_turned_chip_is_predicted_as_the_chip() -> None:
    straight = predicted(chips(), "d4")
    for turns in range(4):
        for flip in (False, True):
            np.testing.assert_allclose(predicted(moved(chips(), turns, flip), "d4"), straight, atol=1e-5)
    assert np.abs(predicted(moved(chips(), 1, False), "none") - predicted(chips(), "none")).max() > 1e-3
    assert np.abs(predicted(moved(chips(), 1, False), "flips") - predicted(chips(), "flips")).max() > 1e-4


def test_the_symmetries_are_all_there_and_their_logits_are_averaged() -> None:
    chip = chips()[:1]
    for tta, expected in {
        "none": [chip],
        "flips": [chip, chip.flip(2), chip.flip(3), chip.flip(2, 3)],
        "d4": [moved(chip, turns, flip) for turns in range(4) for flip in (False, True)],
    }.items():
        got = list(symmetries(chip, tta))  # type: ignore[arg-type]
        assert len(got) == len(expected)
        assert all(sum(torch.equal(a, b) for b in got) == 1 for a in expected)
        mean = np.mean([predicted(view, "none") for view in expected], axis=0)
        np.testing.assert_allclose(predicted(chip, tta), mean, atol=1e-5)  # type: ignore[arg-type]


def test_probabilities_is_finite_for_large_logits() -> None:
    np.testing.assert_array_equal(logits_to_probs(np.array([[-1e4, 0, 1e4]], np.float32)), [[0, 0.5, 1]])
