"""Fits an ensemble: from members to one tuned ensemble with an unbiased estimate of its scores.

The input must be fitting data only: out-of-fold probabilities, or validation rows that selected nothing. The
caller scores the test split afterwards, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from canopy.config import CombinationKind, EnsembleConfig
from canopy.ensemble.combination import COMBINATION_KINDS
from canopy.ensemble.crossfit import Calibrator, Folds, Sample, recalibrate
from canopy.ensemble.fit_combination import FittingData, fit_combination
from canopy.ensemble.logistic import logit
from canopy.ensemble.model import Ensemble, FittedOn
from canopy.ensemble.objective import MapClasses, fit_thresholds
from canopy.ensemble.scores import EnsembleScores
from canopy.ensemble.search import SearchResult, estimated_scores, search
from canopy.ensemble.search_inputs import data_hash, drop_duplicates, sample_rows, targets_of
from canopy.labels import LabelSet
from canopy.predictions.hash_sampling import sample_of
from canopy.predictions.predictions import Predictions, align

RARE_POSITIVES = 10
"""Labels with fewer positives than this are named in a note."""
REFIT_FACTOR = 8
"""The chosen combination is refitted on at most this many times the searched rows."""
NO_FOLDS: Folds = frozenset()


@dataclass(frozen=True, eq=False)
class RefittedChoice:
    """The chosen combination, refitted.

    Args:
        ensemble: the ensemble, its thresholds still at 0.5.
        result: the search that chose it.
        single_reason: why a single member was taken; empty for a combination of several.
        probs_NK: the ensemble's probabilities of the rows it was refitted on, in the order of their ids; the
            members' calibrations exclude each row's own fold.
    """

    ensemble: Ensemble
    result: SearchResult
    single_reason: str
    probs_NK: NDArray[np.float32]


def fit_ensemble(
    members: Mapping[str, Predictions], config: EnsembleConfig, map_classes: MapClasses = map
) -> Ensemble:
    """Fit calibration, combination and thresholds; nested cross-fitting chooses the methods set to ``auto``.

    Neither the order of rows nor that of members changes the result.

    Args:
        members: name -> predictions of the same rows, at least one of them with targets.
        config: objective, and the methods to choose from.
        map_classes: ``map``, or a parallel function with its interface, for the exact thresholds.

    Raises:
        PredictionsError: when members do not fit together, there are no targets, or too few rows.
        DataError: when the config names an unknown label.
    """
    aligned = align(members)
    first = next(iter(aligned.values()))
    targets_NK = targets_of(aligned, config)
    refit_rows = sample_of(first.ids, REFIT_FACTOR * config.search_rows, config.seed)
    if len(refit_rows) == len(first):
        refitted = search_and_refit(aligned, config)
        probs_NK = refitted.probs_NK
    else:  # the same as shards.fit_sharded
        part = {name: member.rows(refit_rows) for name, member in aligned.items()}
        refitted = search_and_refit(part, config)
        used = {name: aligned[name].probs_NK for name in refitted.ensemble.members}
        probs_NK = refitted.ensemble.probabilities(used)
    return finish_ensemble(refitted, probs_NK, targets_NK, data_hash(aligned), config, map_classes)


def search_and_refit(aligned: Mapping[str, Predictions], config: EnsembleConfig) -> RefittedChoice:
    """Search on at most ``config.search_rows`` of the rows, refit the choice on all of them.

    Args:
        aligned: members on the same rows, with targets, sorted by id and by name; at most
            :data:`REFIT_FACTOR` times the searched rows.
        config: objective, and the methods to choose from.

    Raises:
        PredictionsError: when there are no targets or too few rows, or an exclusive group is invalid.
        DataError: when the config names an unknown label.
    """
    labels, targets_NK = next(iter(aligned.values())).labels, targets_of(aligned, config)
    kept, left_out = drop_duplicates(aligned)
    sample = sample_rows(kept, targets_NK, config, config.search_rows)
    calibrator = Calibrator(sample, config)
    kinds: tuple[CombinationKind, ...] = COMBINATION_KINDS
    if config.combination != "auto":
        kinds = (config.combination,)
    single_reason = "no combination beat it in cross-fitting"
    if calibrator.informative(NO_FOLDS).sum() == 1:
        kinds, single_reason = ("best_single",), "the only member that tells anything"
        if len(kept) == 1:
            single_reason = "the only member to choose from"
    elif kinds == ("best_single",):
        single_reason = "as configured"
    result = search(sample, calibrator, kinds, config)
    if len(sample.rows) < len(targets_NK):
        sample = sample_rows(kept, targets_NK, config, len(targets_NK))
        calibrator = Calibrator(sample, config)
    with threadpool_limits(limits=1, user_api="blas"):
        ensemble, probs_NK = _refit(tuple(kept), labels, sample, calibrator, result.choice.kind, config)
    ensemble = replace(ensemble, left_out={**left_out, **ensemble.left_out})
    if ensemble.combination.kind == "best_single":
        return RefittedChoice(ensemble, result, single_reason, probs_NK)
    alone = f"{ensemble.combination.kind.replace('_', ' ')} gave it all the weight"
    return RefittedChoice(ensemble, result, alone if len(ensemble.members) == 1 else "", probs_NK)


def finish_ensemble(
    refitted: RefittedChoice,
    probs_NK: NDArray[np.float32],
    targets_NK: NDArray[np.uint8],
    fingerprint: str,
    config: EnsembleConfig,
    map_classes: MapClasses = map,
) -> Ensemble:
    """The finished ensemble: exact thresholds on all rows, estimated scores, notes and summary.

    Args:
        refitted: result of :func:`search_and_refit`.
        probs_NK: its probabilities of all fitting rows, in the order of their ids.
        targets_NK: targets of these rows.
        fingerprint: hash of the data.
        config: rule and objective of the thresholds.
        map_classes: ``map``, or a parallel function with its interface.
    """
    result, labels = refitted.result, refitted.ensemble.labels
    scores = estimated_scores(result, labels, config)
    positives_K = targets_NK.sum(axis=0, dtype=int).tolist()
    ensemble = replace(
        refitted.ensemble,
        thresholds=fit_thresholds(probs_NK, targets_NK, config, result.sample.costs_K2, map_classes),
        exclusive=tuple(tuple(labels.names[k] for k in group) for group in result.sample.groups),
        notes=_notes(targets_NK, labels, config) + _floor_note(scores, config),
        estimated=scores,
        fitted_on=FittedOn(
            rows=len(targets_NK),
            searched_rows=len(result.sample.rows),
            hash=fingerprint,
            positives=dict(zip(labels.names, positives_K, strict=True)),
        ),
        search=result.choice.table,
    )
    return replace(ensemble, summary=_summary(ensemble, refitted.single_reason, config))


def _refit(
    names: tuple[str, ...],
    labels: LabelSet,
    sample: Sample,
    calibrator: Calibrator,
    kind: CombinationKind,
    config: EnsembleConfig,
) -> tuple[Ensemble, NDArray[np.float32]]:
    """The ensemble with thresholds still at 0.5, and its probabilities of the sample's rows."""
    informative_M = calibrator.informative(NO_FOLDS)
    calibrated_MNK, curves = calibrator.apply(sample, NO_FOLDS)
    calibrated_MNK = calibrated_MNK[informative_M]
    logits_MNK = np.asarray(logit(calibrated_MNK), np.float32)
    data = FittingData(calibrated_MNK, logits_MNK, sample.targets_NK, sample.ids_N, sample.fold_N)
    mix = fit_combination(kind, data, config.bags, config.seed)
    scores_NK = mix.apply(list(calibrated_MNK), list(logits_MNK))
    probs_NK, recalibration = recalibrate(scores_NK, sample.targets_NK, mix)
    weighted = mix.weights_MK.any(axis=1)  # predictions need no members without weight
    used = np.flatnonzero(informative_M)[weighted]
    reasons = dict(zip(names, np.where(informative_M, "no weight", "tells nothing").tolist(), strict=True))
    members = tuple(names[m] for m in used)
    ensemble = Ensemble(
        labels=labels,
        members=members,
        calibrations=tuple(curves[m] for m in used),
        combination=replace(
            mix,
            weights_MK=mix.weights_MK[weighted],
            level1_MFK=None if mix.level1_MFK is None else mix.level1_MFK[weighted],
            quantiles_MKQ=None if mix.quantiles_MKQ is None else mix.quantiles_MKQ[weighted],
        ),
        recalibration=recalibration,
        thresholds=np.full(len(labels), 0.5, np.float32),
        left_out={name: reason for name, reason in reasons.items() if name not in members},
    )
    return ensemble, probs_NK


def _summary(ensemble: Ensemble, single_reason: str, config: EnsembleConfig) -> str:
    if single_reason:
        return f"best single member {ensemble.members[0]}: {single_reason}"
    weights = ", ".join(f"{name} {share:.2f}" for name, share in ensemble.weights.items() if share)
    kind = ensemble.combination.kind.replace("_", " ")
    return f"{kind} of {len(ensemble.members)} members ({weights}) for {config.objective}"


def _notes(targets_NK: NDArray[np.uint8], labels: LabelSet, config: EnsembleConfig) -> tuple[str, ...]:
    """Notes on labels with few or one kind of targets."""
    positives_K = targets_NK.sum(axis=0, dtype=int)
    never = [labels.names[k] for k in np.flatnonzero(positives_K == 0)]
    always = [labels.names[k] for k in np.flatnonzero(positives_K == len(targets_NK))]
    rare = [
        f"{labels.names[k]} ({positives_K[k]})"
        for k in np.flatnonzero((positives_K > 0) & (positives_K < RARE_POSITIVES))
    ]
    effect = "their thresholds lean on the plug-in rule" if config.thresholds == "shrunk" else "expect noise"
    notes = []
    if never:
        notes.append(f"no positives to fit on, threshold left at 0.5: {', '.join(never)}")
    if always:
        notes.append(f"no negatives to fit on: {', '.join(always)}")
    if rare:
        notes.append(f"fewer than {RARE_POSITIVES} positives, {effect}: {', '.join(rare)}")
    return tuple(notes)


def _floor_note(scores: EnsembleScores, config: EnsembleConfig) -> tuple[str, ...]:
    """A note where the cross-fitted micro-F1 is below the configured floor."""
    reached = scores.micro_f1 or 0.0
    if config.micro_floor is None or reached >= config.micro_floor:
        return ()
    return (f"micro-F1 is estimated at {reached:.3f}, under the floor of {config.micro_floor:g}",)
