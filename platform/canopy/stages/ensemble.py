"""Fourth stage: combine the members' probabilities, tune thresholds, score once on the test split.

Files written under ``ensemble/`` of the run directory: ``ensemble.json``, ``test.parquet``, ``scores.json``,
``per_class.csv`` and ``gap.json``; beside it ``model.json`` (:mod:`canopy.inference.model_file`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.config import EnsembleConfig, derive, fingerprint
from canopy.data.catalogue import Catalogue
from canopy.ensemble.csv_outputs import per_class_csv
from canopy.ensemble.distribution_shift import member_shifts
from canopy.ensemble.evaluate import decide_by_step, measured_scores
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.model import Ensemble
from canopy.ensemble.scores import EnsembleScores
from canopy.errors import RunDirError
from canopy.inference.model_file import NAME as MODEL_FILE
from canopy.inference.model_file import write_model_file
from canopy.metrics import decide
from canopy.metrics.score_card import ScoreCard, decision_scores, score_card
from canopy.predictions.io import read_predictions, write_predictions
from canopy.predictions.predictions import Predictions, align
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage
from canopy.stages.context import StageContext
from canopy.stages.prepare import load_catalogue
from canopy.stages.train import finished_training_runs, training_runs
from canopy.storage import files
from canopy.storage.run_dir import LAYOUT, RunDir, timed
from canopy.train.stored_predictions import fitting_members
from canopy.train.training_run import TrainingRun

CARD = 2
"""Version of ``scores.json``, part of the fingerprint: a run with an older version is scored again."""
OUTPUTS = ("ensemble.json", "test.parquet", "scores.json", "per_class.csv", "gap.json")
"""Files whose checksums ``done.json`` holds."""


@dataclass(frozen=True)
class GainOverBestMember:
    """The tuned ensemble against the best single member, tuned in the same way, on the test split.

    Args:
        name: the best single member.
        macro_f1: macro-F1 of the ensemble minus that of the member: low end of the 95% interval, value,
            high end.
    """

    name: str
    macro_f1: tuple[float, float, float]


@dataclass(frozen=True)
class TestScores:
    """Content of ``scores.json``.

    Args:
        members: score card of each member alone (:func:`member_scores`).
        ensemble: score card of the ensemble (:func:`canopy.ensemble.evaluate.measured_scores`).
        versus: the ensemble against the best single member.
    """

    __test__ = False  # (not a test class)

    members: dict[str, ScoreCard]
    ensemble: EnsembleScores
    versus: GainOverBestMember

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "members": {name: card.to_json() for name, card in self.members.items()},
            "ensemble": self.ensemble.to_json(),
            "versus": asdict(self.versus),
        }


def key(context: StageContext) -> str:
    """Fingerprint of the stage: the ensemble section and every training that it reads.

    Raises:
        RunDirError: when an earlier stage has not finished for this config.
    """
    return key_of(context.config.ensemble, training_runs(context, load_catalogue(context)))


def key_of(config: EnsembleConfig, trainings: Sequence[TrainingRun]) -> str:
    """Fingerprint of the stage for given trainings."""
    return fingerprint(LAYOUT, Stage.ENSEMBLE, CARD, config, [one.fingerprint for one in trainings])


def is_done(context: StageContext) -> bool:
    """Whether the ensemble of this config has been fitted and scored.

    Raises:
        RunDirError: when an earlier stage has not finished for this config.
    """
    return context.run_dir.done(Stage.ENSEMBLE, key(context)) is not None


def run(context: StageContext) -> None:
    """Fit the ensemble and score it on the test split, unless that is done.

    Raises:
        RunDirError: when an earlier stage has not finished for this config.
        PredictionsError: when the members' predictions do not match.
    """
    catalogue = load_catalogue(context)
    trainings = finished_training_runs(context, catalogue)
    stage_key = key_of(context.config.ensemble, trainings)
    if context.run_dir.done(Stage.ENSEMBLE, stage_key):
        context.console.say(Stage.ENSEMBLE, "done already")
        if not files.exists(context.run_dir.path(MODEL_FILE)):  # finished by an earlier version
            write_model_file(context.run_dir, context.config)
        return
    context.run_dir.withdraw(Stage.ENSEMBLE)
    files.delete(context.run_dir.path(MODEL_FILE))
    with timed() as watch:
        fit_and_score(context, trainings, catalogue)
        write_model_file(context.run_dir, context.config)
    context.run_dir.finish(Stage.ENSEMBLE, stage_key, OUTPUTS, **watch)


def load_ensemble(context: StageContext, trainings: Sequence[TrainingRun]) -> Ensemble:
    """The fitted ensemble of this config.

    Raises:
        RunDirError: when the stage has not finished for this config.
        PredictionsError: when ``ensemble.json`` is damaged.
    """
    if context.run_dir.done(Stage.ENSEMBLE, key_of(context.config.ensemble, trainings)) is None:
        thing = f"Run directory {files.shown(context.run_dir.root)}"
        need = "must hold a finished ensemble of this config"
        raise RunDirError(thing, need, "none", "Run jobs/ensemble.py with it first.")
    return Ensemble.load(context.run_dir.path(Stage.ENSEMBLE, "ensemble.json"))


def fit_and_score(context: StageContext, trainings: Sequence[TrainingRun], catalogue: Catalogue) -> None:
    """Fit on held-out or validation predictions, score on the test split, write the files.

    Raises:
        PredictionsError: when the members' predictions are missing, damaged or do not match.
    """
    config, run_dir, console = context.config.ensemble, context.run_dir, context.console
    names = list(dict.fromkeys(training_run.variant.name for training_run in trainings))
    fitting = fitting_members(run_dir, names, context.config.folds, catalogue)
    rows = len(next(iter(fitting.values())))
    console.say(Stage.ENSEMBLE, f"{len(fitting)} members; fitting weights and thresholds on {rows:,} rows")
    fitted = fit_ensemble(fitting, config)
    single = fit_ensemble(fitting, derive(config, combination="best_single"))
    console.say(Stage.ENSEMBLE, fitted.summary)
    test_rows, test_probs_by_member = test_members(trainings, run_dir)
    assert test_rows.targets_NK is not None
    probs_NK, decisions_NK = fitted.predict(test_probs_by_member)
    steps = decide_by_step(fitted, single, test_probs_by_member)
    assert np.array_equal(steps.ensemble, decisions_NK)
    card = measured_scores(fitted, steps, test_rows.targets_NK, probs_NK, config)
    gain = card.over["single_tuned"]["macro_f1"]
    scores = TestScores(
        members=member_scores(fitting, test_rows, test_probs_by_member, config, console),
        ensemble=card,
        versus=GainOverBestMember(single.members[0], (gain.low, gain.value, gain.high)),
    )
    fitted = fitted.scored(card)
    fitted.save(run_dir.path(Stage.ENSEMBLE, "ensemble.json"))
    result = Predictions(test_rows.ids, probs_NK, test_rows.labels, targets_NK=test_rows.targets_NK)
    write_predictions(run_dir.path(Stage.ENSEMBLE, "test.parquet"), result)
    files.write_bytes(run_dir.path(Stage.ENSEMBLE, "per_class.csv"), per_class_csv(fitted))
    files.write_json(run_dir.path(Stage.ENSEMBLE, "scores.json"), scores.to_json())
    calibrations = dict(zip(fitted.members, fitted.calibrations, strict=True))
    fitted_on = {name: member.probs_NK for name, member in fitting.items()}
    shifts = member_shifts(calibrations, fitted_on, test_probs_by_member, test_rows.labels.names)
    files.write_json(run_dir.path(Stage.ENSEMBLE, "gap.json"), shifts.to_json())


def test_members(
    trainings: Sequence[TrainingRun], run_dir: RunDir
) -> tuple[Predictions, dict[str, list[NDArray[np.float32]]]]:
    """The test rows with their targets, and each member's probabilities (N, K), one array per fold.

    Raises:
        PredictionsError: when a training's predictions are missing, damaged or do not match the others'.
    """
    found = {
        f"{training_run.variant.name}\0{training_run.fold}": read_predictions(
            run_dir.path(training_run.directory, "test.parquet")
        )
        for training_run in trainings
    }
    aligned = align(found)
    test_probs_by_member: dict[str, list[NDArray[np.float32]]] = {}
    for member_key, part in aligned.items():
        test_probs_by_member.setdefault(member_key.partition("\0")[0], []).append(part.probs_NK)
    return next(iter(aligned.values())), test_probs_by_member


def member_scores(
    fitting: Mapping[str, Predictions],
    test_rows: Predictions,
    test_probs_by_member: Mapping[str, list[NDArray[np.float32]]],
    config: EnsembleConfig,
    console: Console,
) -> dict[str, ScoreCard]:
    """Score card of each member alone on the test split, with thresholds tuned as for the ensemble.

    Args:
        fitting: probabilities and targets of the rows to tune on, by member.
        test_rows: the test rows, with targets (N, K).
        test_probs_by_member: test probabilities (N, K), one array per fold, by member.
        config: rule and objective of the thresholds; resamples and seed of the intervals.
        console: receives one line per member.

    Returns:
        By member, the card of :func:`canopy.metrics.score_card.score_card` for its calibrated probabilities.
        Its ``at_half`` holds the decision scores of the uncalibrated mean over folds, thresholded at 0.5.

    Raises:
        PredictionsError: when there are too few fitting rows, or a member's arrays have the wrong shape.
    """
    assert test_rows.targets_NK is not None
    scores: dict[str, ScoreCard] = {}
    for name, fold_probs in test_probs_by_member.items():
        alone = fit_ensemble({name: fitting[name]}, config)
        probs_NK, decisions_NK = alone.predict({name: fold_probs})
        resamples, seed = config.bootstrap, config.seed
        card = score_card(test_rows.targets_NK, decisions_NK, probs_NK, test_rows.labels, resamples, seed)
        half_NK = decide(np.mean(fold_probs, axis=0))
        half = decision_scores(test_rows.targets_NK, half_NK, test_rows.labels, resamples, seed)
        scores[name] = card.with_half(half)
        figures = f"test macro-F1 {card.macro_f1:.3f}, micro-F1 {card.micro_f1:.3f}"
        console.say(Stage.ENSEMBLE, f"{name}: {figures}")
    return scores
