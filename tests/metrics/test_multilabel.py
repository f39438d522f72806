"""Every metric equals scikit-learn's, edge cases included, and counts of shards add up."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference
from tests.metrics.draws import draw

from canopy import metrics
from canopy.metrics import Counts


@pytest.mark.parametrize("seed", range(4))
def test_f1_figures_equal_scikit_learn(seed: int) -> None:
    targets_NK, probs_NK = draw(seed)
    decided_NK = metrics.decide(probs_NK, np.linspace(0.3, 0.7, 7))
    counts = Counts.of(targets_NK, decided_NK)
    assert metrics.micro_f1(counts) == pytest.approx(
        reference.f1_score(targets_NK, decided_NK, average="micro"), abs=1e-6
    )
    assert metrics.macro_f1(counts) == pytest.approx(
        reference.f1_score(targets_NK, decided_NK, average="macro"), abs=1e-6
    )
    np.testing.assert_allclose(
        metrics.per_class_f1(counts), reference.f1_score(targets_NK, decided_NK, average=None), atol=1e-6
    )
    np.testing.assert_allclose(
        metrics.per_class_fbeta(counts, 2.0),
        reference.fbeta_score(targets_NK, decided_NK, beta=2, average=None),
        atol=1e-6,
    )
    for beta in (1.0, 2.0):
        ours = metrics.per_image_fbeta(targets_NK, decided_NK, beta).mean()
        theirs = reference.fbeta_score(
            targets_NK, decided_NK, beta=beta, average="samples", zero_division=1.0
        )
        assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_ranking_figures_equal_scikit_learn(seed: int, ties: bool) -> None:
    targets_NK, probs_NK = draw(seed, ties=ties)
    np.testing.assert_allclose(
        metrics.average_precision(targets_NK, probs_NK),
        reference.average_precision_score(targets_NK, probs_NK, average=None),
        atol=1e-6,
    )
    assert metrics.mean_average_precision(targets_NK, probs_NK) == pytest.approx(
        reference.average_precision_score(targets_NK, probs_NK, average="macro"), abs=1e-6
    )
    assert metrics.coverage_error(targets_NK, probs_NK) == pytest.approx(
        reference.coverage_error(targets_NK, probs_NK), abs=1e-6
    )
    assert metrics.ranking_loss(targets_NK, probs_NK) == pytest.approx(
        reference.label_ranking_loss(targets_NK, probs_NK), abs=1e-6
    )
    np.testing.assert_allclose(
        metrics.log_loss(targets_NK, np.clip(probs_NK, 1e-3, 0.999)),
        [
            reference.log_loss(targets_NK[:, k], np.clip(probs_NK[:, k], 1e-3, 0.999), labels=[0, 1])
            for k in range(7)
        ],
        rtol=1e-5,
    )


def test_a_class_without_positives_is_left_out_of_macro_figures() -> None:
    targets_NK, probs_NK = draw(0)
    targets_NK[:, 2] = 0
    counts = Counts.of(targets_NK, metrics.decide(probs_NK))
    kept = [0, 1, 3, 4, 5, 6]
    assert np.isnan(metrics.per_class_f1(counts)[2])
    assert np.isnan(metrics.average_precision(targets_NK, probs_NK)[2])
    assert metrics.macro_f1(counts) == pytest.approx(
        reference.f1_score(targets_NK[:, kept], metrics.decide(probs_NK)[:, kept], average="macro"), abs=1e-6
    )
    assert metrics.without_positives(targets_NK).tolist() == [False, False, True, False, False, False, False]


@pytest.mark.parametrize("ties", [False, True])
def test_ranking_figures_equal_scikit_learn_at_the_edges(ties: bool) -> None:
    targets_NK, probs_NK = draw(5, ties=ties)
    targets_NK[:, 2], targets_NK[:, 4] = 0, 1  # a class never positive, one always
    targets_NK[:9], targets_NK[9:20] = 1, 0  # rows with every label, rows with none
    targets_NK[:, 2] = 0
    kept = [0, 1, 3, 4, 5, 6]
    expected_K = reference.average_precision_score(targets_NK[:, kept], probs_NK[:, kept], average=None)
    np.testing.assert_allclose(metrics.average_precision(targets_NK, probs_NK)[kept], expected_K, atol=1e-6)
    assert metrics.mean_average_precision(targets_NK, probs_NK) == pytest.approx(expected_K.mean(), abs=1e-6)
    assert metrics.ranking_loss(targets_NK, probs_NK) == pytest.approx(
        reference.label_ranking_loss(targets_NK, probs_NK), abs=1e-6
    )
    assert metrics.coverage_error(targets_NK, probs_NK) == pytest.approx(
        reference.coverage_error(targets_NK, probs_NK), abs=1e-6
    )


def test_nothing_at_all_has_no_f1_and_full_rows_count_one() -> None:
    empty = np.zeros((3, 2), np.uint8)
    counts = Counts.of(empty, empty)
    assert np.isnan(metrics.micro_f1(counts))
    assert np.isnan(metrics.macro_f1(counts))
    assert metrics.per_image_fbeta(empty, empty).tolist() == [1, 1, 1]
    assert metrics.ranking_loss(empty, empty) == 0


def test_counts_of_shards_add_up_to_the_whole() -> None:
    targets_NK, probs_NK = draw(1, rows=301)
    decided_NK = metrics.decide(probs_NK)
    whole = Counts.of(targets_NK, decided_NK)
    parts = [Counts.of(targets_NK[i::3], decided_NK[i::3]) for i in range(3)]
    merged = parts[0] + parts[1] + parts[2]
    assert metrics.macro_f1(merged) == metrics.macro_f1(whole)
    assert metrics.micro_f1(merged) == metrics.micro_f1(whole)


def test_calibration_error_of_known_bins() -> None:
    probs_NK = np.array([[0.9]] * 10 + [[0.1]] * 10)
    targets_NK = np.array([[1]] * 7 + [[0]] * 3 + [[0]] * 10)
    assert metrics.calibration_error(targets_NK, probs_NK)[0] == pytest.approx(0.5 * 0.2 + 0.5 * 0.1)
    perfect = np.array([[0.0], [1.0]])
    assert metrics.calibration_error(perfect, perfect)[0] == 0


def test_the_ranking_loss_of_many_labels_is_that_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    targets_NK = rng.random((50, 30)) < rng.random((50, 1))
    targets_NK[:2] = [[True], [False]]
    scores_NK = rng.integers(0, 9, (50, 30)) / 8  # many ties
    few = metrics.ranking_loss(targets_NK, scores_NK)
    monkeypatch.setattr("canopy.metrics.multilabel.MANY_LABELS", 29)
    assert metrics.ranking_loss(targets_NK, scores_NK) == few
