"""The ensemble stage over a run directory: every figure it writes is scikit-learn's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as reference
from tests.ensemble.worlds import FAST, LABELS, world
from tests.support import read_json

from canopy.config import Experiment, VariantConfig
from canopy.data.catalogue import Catalogue
from canopy.ensemble.fit import fit_ensemble
from canopy.predictions.io import read_predictions, write_predictions
from canopy.runtime.console import Console
from canopy.stages import ensemble
from canopy.stages.context import StageContext
from canopy.storage.run_dir import RunDir
from canopy.train.stored_predictions import fitting_members
from canopy.train.training_run import TrainingRun

MEMBERS, FOLDS, FITTING, TEST = ("m0", "m1"), 2, 400, 300
Scored = tuple[RunDir, list[TrainingRun], dict[str, Any]]


def catalogue() -> Catalogue:
    """The rows of two worlds: one to fit on, in two folds, and one to test on."""
    fitting, test = world(FITTING)["m0"], world(TEST, seed=1)["m0"]
    ids = [*fitting.ids.tolist(), *test.ids.tolist()]
    assert fitting.targets_NK is not None
    assert test.targets_NK is not None
    return Catalogue(
        ids=ids,
        uris=[""] * len(ids),
        targets_NK=np.concatenate([fitting.targets_NK, test.targets_NK]),
        split=np.array(["train"] * FITTING + ["test"] * TEST),
        fold=np.array([n % FOLDS for n in range(FITTING)] + [-1] * TEST, np.int8),
        group=np.array([""] * len(ids)),
        labels=LABELS,
    )


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """A run whose members have predicted, after the stage: the run, its trainings, what scores.json holds."""
    run_dir = RunDir(str(tmp_path_factory.mktemp("run")))
    fitting, tests = world(FITTING), [world(TEST, seed=1), world(TEST, seed=1, noises=(1.7, 1.2))]
    training_runs = []
    for name in MEMBERS:
        for fold in range(FOLDS):
            training_run = TrainingRun(
                VariantConfig(name=name), fold, FOLDS, run_dir.root, f"{name}{fold}", ""
            )
            training_runs.append(training_run)
            heldout = fitting[name].rows(np.arange(fold, FITTING, FOLDS))
            write_predictions(run_dir.path(training_run.directory, "heldout.parquet"), heldout)
            write_predictions(run_dir.path(training_run.directory, "test.parquet"), tests[fold][name])
    ensemble.fit_and_score(context_of(run_dir), training_runs, catalogue())
    return run_dir, training_runs, read_json(Path(run_dir.path("ensemble", "scores.json")))


def context_of(run_dir: RunDir) -> StageContext:
    """A context whose config has the fast ensemble."""
    variants = tuple(VariantConfig(name=name) for name in MEMBERS)
    return StageContext(Experiment(variants=variants, folds=FOLDS, ensemble=FAST), run_dir, Console())


def same_decisions(card: dict[str, Any], targets_NK: NDArray[Any], decided_NK: NDArray[Any]) -> None:
    """Every figure of ``card`` that depends on decisions is scikit-learn's."""
    expected = {
        "micro_f1": reference.f1_score(targets_NK, decided_NK, average="micro"),
        "macro_f1": reference.f1_score(targets_NK, decided_NK, average="macro"),
        "samples_f1": reference.f1_score(targets_NK, decided_NK, average="samples", zero_division=1.0),
        "samples_f2": reference.fbeta_score(
            targets_NK, decided_NK, beta=2, average="samples", zero_division=1.0
        ),
    }
    assert {name: card[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    per_class_K = reference.f1_score(targets_NK, decided_NK, average=None)
    assert list(card["per_class_f1"]) == list(LABELS.names)
    np.testing.assert_allclose(list(card["per_class_f1"].values()), per_class_K, atol=1e-6)
    for name, value in expected.items():
        low, high = card["intervals"][name]
        assert low < value < high


def same_ranking(card: dict[str, Any], targets_NK: NDArray[Any], probs_NK: NDArray[Any]) -> None:
    """Every figure of ``card`` that no threshold changes is scikit-learn's, calibration error by hand."""
    expected = {
        "map": reference.average_precision_score(targets_NK, probs_NK, average="macro"),
        "ranking_loss": reference.label_ranking_loss(targets_NK, probs_NK),
        "coverage_error": reference.coverage_error(targets_NK, probs_NK),
        "calibration_error": np.mean(
            [binned_gap(t_N, p_N) for t_N, p_N in zip(targets_NK.T, probs_NK.T, strict=True)]
        ),
    }
    assert {name: card[name] for name in expected} == pytest.approx(expected, abs=1e-5)


def binned_gap(targets_N: NDArray[Any], probs_N: NDArray[Any], bins: int = 15) -> float:
    """Expected calibration error of one label, bin after bin as Naeini et al. (2015) write it."""
    total = 0.0
    for low, high in zip(np.arange(bins) / bins, np.arange(1, bins + 1) / bins, strict=True):
        inside = (probs_N >= low) & ((probs_N < high) | (high == 1))
        if inside.any():
            total += inside.mean() * abs(probs_N[inside].mean() - targets_N[inside].mean())
    return total


def test_every_figure_of_the_ensemble_is_there_tuned_and_at_half(scored: Scored) -> None:
    run_dir, _, scores = scored
    found = read_predictions(run_dir.path("ensemble", "test.parquet"))
    thresholds = read_json(Path(run_dir.path("ensemble", "ensemble.json")))["thresholds"]
    cuts_K = np.array([thresholds[name] for name in LABELS.names], np.float32)
    tuned_NK, half_NK = found.probs_NK >= cuts_K, found.probs_NK >= 0.5
    assert (tuned_NK != half_NK).any(), "else tuned and untuned figures would be the same"
    assert found.targets_NK is not None
    same_decisions(scores["ensemble"], found.targets_NK, tuned_NK)
    same_decisions(scores["ensemble"]["at_half"], found.targets_NK, half_NK)
    same_ranking(scores["ensemble"], found.targets_NK, found.probs_NK)


def test_every_figure_of_a_member_is_there_tuned_and_at_half(scored: Scored) -> None:
    run_dir, training_runs, scores = scored
    fitting = fitting_members(run_dir, MEMBERS, FOLDS, catalogue())
    assert list(scores["members"]) == list(MEMBERS)
    for name, card in scores["members"].items():
        parts = [
            read_predictions(run_dir.path(u.directory, "test.parquet"))
            for u in training_runs
            if name in u.name
        ]
        assert len(parts) == FOLDS
        targets_NK = parts[0].targets_NK
        assert targets_NK is not None
        own_NK = np.mean([part.probs_NK for part in parts], axis=0)
        alone = fit_ensemble({name: fitting[name]}, FAST)
        probs_NK, tuned_NK = alone.predict({name: [part.probs_NK for part in parts]})
        half_NK = own_NK >= 0.5
        assert (half_NK != (probs_NK >= 0.5)).any(), "else calibrated and own figures would be the same"
        same_decisions(card, targets_NK, tuned_NK)
        same_decisions(card["at_half"], targets_NK, half_NK)
        same_ranking(card, targets_NK, probs_NK)


def test_what_was_estimated_has_the_figures_at_half_too(scored: Scored) -> None:
    run_dir, _, _ = scored
    card = read_json(Path(run_dir.path("ensemble", "ensemble.json")))["estimated"]
    at_half = card["at_half"]
    assert at_half["per_class_f1"] == card["steps"]["ensemble_half"]
    assert at_half["macro_f1"] == pytest.approx(np.mean(list(at_half["per_class_f1"].values())))
    assert at_half["macro_f1"] != card["macro_f1"]


def test_the_version_of_the_score_card_is_part_of_the_fingerprint(
    scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, training_runs, _ = scored
    before = ensemble.key_of(FAST, training_runs)
    assert ensemble.key_of(FAST, training_runs) == before
    monkeypatch.setattr(ensemble, "CARD", ensemble.CARD + 1)
    assert ensemble.key_of(FAST, training_runs) != before
