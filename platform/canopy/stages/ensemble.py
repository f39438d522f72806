"""The final stage: everybody's probabilities into one tuned decision, scored once on the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.config import EnsembleConfig, derive, fingerprint
from canopy.data.catalogue import Catalogue
from canopy.ensemble.distribution_shift import member_gaps
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.from_files import csv_bytes, measure, per_class_table, step_decisions
from canopy.metrics import decide
from canopy.metrics.bootstrap import decision_scores, score
from canopy.predictions.io import Predictions, align, concatenate, read_predictions, write_predictions
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import LAYOUT, RunDir, timed
from canopy.train.training_run import TrainingRun, fitting_part

UNIT = "ensemble"
CARD = 2
"""Version of what ``scores.json`` holds, part of the stage's fingerprint: runs scored before are scored anew,
in seconds, instead of being reported with figures missing."""


def ensemble(
    config: EnsembleConfig,
    training_runs: Sequence[TrainingRun],
    catalogue: Catalogue,
    run: RunDir,
    console: Console,
) -> None:
    """Do the stage, unless it is done: fit on out-of-fold (or the second half of val), score on test."""
    key = ensemble_key(config, training_runs)
    if run.done(UNIT, key):
        console.say(UNIT, "done already")
        return
    with timed() as watch:
        fitting = fitting_members(training_runs, catalogue, run)
        rows = len(next(iter(fitting.values())))
        console.say(UNIT, f"{len(fitting)} members; fitting weights and thresholds on {rows:,} rows")
        fitted = fit_ensemble(fitting, config)
        single = fit_ensemble(fitting, derive(config, combination="best_single"))
        console.say(UNIT, fitted.summary)
        truth, tests = test_members(training_runs, run)
        assert truth.targets_NK is not None
        probs_NK, decisions_NK = fitted.predict(tests)
        steps = step_decisions(fitted, single, tests)
        assert np.array_equal(steps["ensemble"], decisions_NK)
        card = measure(fitted, steps, truth.targets_NK, probs_NK, config)
        gap = card["over_single_tuned"]["macro_f1"]
        scores = {
            "members": member_scores(fitting, truth, tests, config, console),
            "ensemble": card,
            "versus": {"name": single.members[0], "macro_f1": [gap["low"], gap["value"], gap["high"]]},
        }
        fitted = fitted.scored(card)
        fitted.save(run.path(UNIT, "ensemble.json"))
        result = Predictions(truth.ids, probs_NK, truth.labels, targets_NK=truth.targets_NK)
        write_predictions(run.path(UNIT, "test.parquet"), result)
        table = per_class_table(fitted)
        files.write_bytes(run.path(UNIT, "per_class.csv"), csv_bytes(table))
        files.write_json(run.path(UNIT, "scores.json"), scores)
        calibrations = dict(zip(fitted.members, fitted.calibrations, strict=True))
        fitted_on = {name: member.probs_NK for name, member in fitting.items()}
        files.write_json(
            run.path(UNIT, "gap.json"), member_gaps(calibrations, fitted_on, tests, truth.labels.names)
        )
    run.finish(UNIT, key, **watch)


def ensemble_key(config: EnsembleConfig, training_runs: Sequence[TrainingRun]) -> str:
    """The stage's fingerprint: its section and every training it reads."""
    return fingerprint(
        LAYOUT, UNIT, CARD, config, [training_run.fingerprint for training_run in training_runs]
    )


def fitting_members(
    training_runs: Sequence[TrainingRun], catalogue: Catalogue, run: RunDir
) -> dict[str, Predictions]:
    """What the ensemble is fitted on, by member: rows that chose no epoch and taught nobody."""
    parts: dict[str, list[Predictions]] = {}
    for training_run in training_runs:
        found = read_predictions(
            run.path(training_run.directory, f"{fitting_part(training_run.folds)}.parquet")
        )
        if training_run.folds == 1:
            ids = np.array(catalogue.ids)[catalogue.rows("val", fold=1)]
            found = found.rows(np.isin(found.ids, ids))
        parts.setdefault(training_run.variant.name, []).append(found)
    return dict(align({name: concatenate(found) for name, found in parts.items()}))


def test_members(
    training_runs: Sequence[TrainingRun], run: RunDir
) -> tuple[Predictions, dict[str, list[NDArray[np.float32]]]]:
    """The test rows with their targets, and each member's probabilities (N, K), one array per fold."""
    found = {
        f"{training_run.variant.name}\0{training_run.fold}": read_predictions(
            run.path(training_run.directory, "test.parquet")
        )
        for training_run in training_runs
    }
    aligned = align(found)
    arrays: dict[str, list[NDArray[np.float32]]] = {}
    for key, part in aligned.items():
        arrays.setdefault(key.partition("\0")[0], []).append(part.probs_NK)
    return next(iter(aligned.values())), arrays


def member_scores(
    fitting: Mapping[str, Predictions],
    truth: Predictions,
    tests: Mapping[str, list[NDArray[np.float32]]],
    config: EnsembleConfig,
    console: Console,
) -> dict[str, Any]:
    """Each member alone on the test split, with thresholds tuned by the same rule on the same rows.

    Args:
        fitting: each member's probabilities and targets of the rows to tune on.
        truth: the test rows, with targets (N, K).
        tests: each member's test probabilities (N, K), one array per fold.
        config: how to tune; resamples and seed of the intervals.
        console: told of each member.

    Returns:
        The card of :func:`canopy.metrics.bootstrap.score` by member, of its calibrated probabilities; ``at_half`` in
        it: the figures that depend on decisions when its own probabilities, averaged over folds and neither
        calibrated nor tuned, are cut at 0.5.
    """
    assert truth.targets_NK is not None
    scores: dict[str, Any] = {}
    for name, arrays in tests.items():
        alone = fit_ensemble({name: fitting[name]}, config)
        probs_NK, decisions_NK = alone.predict({name: arrays})
        card = score(truth.targets_NK, decisions_NK, probs_NK, truth.labels, config.bootstrap, config.seed)
        half_NK = decide(np.mean(arrays, axis=0))
        card["at_half"] = decision_scores(
            truth.targets_NK, half_NK, truth.labels, config.bootstrap, config.seed
        )
        scores[name] = card
        console.say(UNIT, f"{name}: test macro-F1 {card['macro_f1']:.3f}, micro-F1 {card['micro_f1']:.3f}")
    return scores
