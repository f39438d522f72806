"""Fitting an ensemble: members in, one tuned and honestly estimated decision out.

Only fitting data (out-of-fold probabilities, or a part of validation that selected nothing) may come
in here; the test split is scored afterwards, by the caller, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from canopy.config import CombinationKind, EnsembleConfig
from canopy.ensemble.candidates import KINDS, Evidence, fit_combination
from canopy.ensemble.crossfit import Calibrator, Sample, recalibrate
from canopy.ensemble.logistic import logit
from canopy.ensemble.model import Ensemble
from canopy.ensemble.objective import MapClasses, fit_thresholds
from canopy.ensemble.search_sample import data_hash, distinct, sample_rows, targets_of
from canopy.ensemble.selection import Search, score_card, search
from canopy.labels import LabelSet
from canopy.predictions.hashed_ids import sample_of
from canopy.predictions.predictions import Predictions, align

RARE = 10
"""Classes with fewer positives than this are named."""
REFIT = 8
"""The winner's curves and weights are refitted on this many times more rows than were searched."""


@dataclass(frozen=True, eq=False)
class Winner:
    """What the search chose, refitted.

    Args:
        ensemble: the winner, its thresholds still at 0.5.
        found: the search behind it.
        why_single: why a single member was taken; empty where it was not.
        sample_probs_NK: its probabilities of the rows it was refitted on, in the order of their ids, members
            calibrated without a row's own fold.
    """

    ensemble: Ensemble
    found: Search
    why_single: str
    sample_probs_NK: NDArray[np.float32]


def fit_ensemble(
    members: Mapping[str, Predictions], config: EnsembleConfig, map_classes: MapClasses = map
) -> Ensemble:
    """Calibrate, combine and cut, each step chosen by nested cross-fitting where the config says auto.

    Neither the order of rows nor that of members changes the result.

    Args:
        members: by name, on the same rows, at least one of them with targets.
        config: what to aim at, and what to choose from.
        map_classes: a parallel ``map`` over classes for the exact thresholds, where there is one.

    Raises:
        PredictionsError: when members do not fit together, there are no targets, or too few rows.
        DataError: when the config names an unknown label.
    """
    aligned = align(members)
    first = next(iter(aligned.values()))
    targets_NK = targets_of(aligned, config)
    chosen = sample_of(first.ids, REFIT * config.search_rows, config.seed)
    if len(chosen) == len(first):
        winner = find_winner(aligned, config)
        probs_NK = winner.sample_probs_NK
    else:  # as shards.fit_sharded does
        winner = find_winner({name: member.rows(chosen) for name, member in aligned.items()}, config)
        used = {name: aligned[name].probs_NK for name in winner.ensemble.members}
        probs_NK = winner.ensemble.probabilities(used)
    return finish(winner, probs_NK, targets_NK, data_hash(aligned), config, map_classes)


def find_winner(aligned: Mapping[str, Predictions], config: EnsembleConfig) -> Winner:
    """Search on at most ``config.search_rows`` of the rows, refit on all of them.

    Args:
        aligned: members on the same rows, with targets, sorted by id and by name; at most :data:`REFIT` times
            as many as are searched.
        config: what to aim at, and what to choose from.
    """
    labels, targets_NK = next(iter(aligned.values())).labels, targets_of(aligned, config)
    kept, left_out = distinct(aligned)
    sample = sample_rows(kept, targets_NK, config, config.search_rows)
    calibrator = Calibrator(sample, config)
    kinds: tuple[CombinationKind, ...] = KINDS if config.combination == "auto" else (config.combination,)
    why_single = "no combination beat it in cross-fitting"
    if calibrator.telling(frozenset()).sum() == 1:
        kinds, why_single = ("best_single",), "the only member that tells anything"
        if len(kept) == 1:
            why_single = "the only member to choose from"
    elif kinds == ("best_single",):
        why_single = "as configured"
    found = search(sample, calibrator, kinds, config)
    if len(sample.rows) < len(targets_NK):
        sample = sample_rows(kept, targets_NK, config, len(targets_NK))
        calibrator = Calibrator(sample, config)
    with threadpool_limits(limits=1, user_api="blas"):
        ensemble, probs_NK = _refit(tuple(kept), labels, sample, calibrator, found.verdict.kind, config)
    ensemble = replace(ensemble, left_out=left_out | ensemble.left_out)
    if ensemble.combination.kind == "best_single":
        return Winner(ensemble, found, why_single, probs_NK)
    alone = f"{ensemble.combination.kind.replace('_', ' ')} gave it all the weight"
    return Winner(ensemble, found, alone if len(ensemble.members) == 1 else "", probs_NK)


def finish(
    winner: Winner,
    probs_NK: NDArray[np.float32],
    targets_NK: NDArray[np.uint8],
    fingerprint: str,
    config: EnsembleConfig,
    map_classes: MapClasses = map,
) -> Ensemble:
    """The ensemble: the winner with exact thresholds on all rows, and what is known about it.

    Args:
        winner: from :func:`find_winner`.
        probs_NK: its probabilities of all fitting rows, in the order of their ids.
        targets_NK: truth of these rows.
        fingerprint: hash of the data.
        config: rule and objective of the thresholds.
        map_classes: a parallel ``map`` over classes, where there is one.
    """
    found, labels = winner.found, winner.ensemble.labels
    card = score_card(found.sample, found.nested, found.single, labels, config)
    ensemble = replace(
        winner.ensemble,
        thresholds=fit_thresholds(probs_NK, targets_NK, config, found.sample.costs_K2, map_classes),
        exclusive=tuple(tuple(labels.names[k] for k in group) for group in found.sample.groups),
        notes=_notes(targets_NK, labels, config),
        estimated=card | {"chosen": found.chosen},
        fitted_on={
            "rows": len(targets_NK),
            "searched_rows": len(found.sample.rows),
            "hash": fingerprint,
            "positives": dict(zip(labels.names, targets_NK.sum(axis=0, dtype=int).tolist(), strict=True)),
        },
        search=found.verdict.table,
    )
    summary = _summary(ensemble, winner.why_single, config)
    return replace(ensemble, summary=summary, notes=ensemble.notes + _under_floor(card, config))


def _refit(
    names: tuple[str, ...],
    labels: LabelSet,
    sample: Sample,
    calibrator: Calibrator,
    kind: CombinationKind,
    config: EnsembleConfig,
) -> tuple[Ensemble, NDArray[np.float32]]:
    """The ensemble with thresholds still at 0.5, and its probabilities of the sample's rows."""
    told = calibrator.telling(frozenset())
    calibrated_MNK, curves = calibrator.apply(sample, frozenset())
    calibrated_MNK = calibrated_MNK[told]
    logits_MNK = np.asarray(logit(calibrated_MNK), np.float32)
    evidence = Evidence(calibrated_MNK, logits_MNK, sample.targets_NK, sample.ids_N, sample.fold_N)
    mix = fit_combination(kind, evidence, config.bags, config.seed)
    scores_NK = mix.apply(list(calibrated_MNK), list(logits_MNK))
    probs_NK, recalibration = recalibrate(scores_NK, sample.targets_NK, mix)
    busy = mix.weights_MK.any(axis=1)  # members without weight need not be asked at prediction time
    used = np.flatnonzero(told)[busy]
    reasons = dict(zip(names, np.where(told, "no weight", "tells nothing").tolist(), strict=True))
    members = tuple(names[m] for m in used)
    ensemble = Ensemble(
        labels=labels,
        members=members,
        calibrations=tuple(curves[m] for m in used),
        combination=replace(
            mix,
            weights_MK=mix.weights_MK[busy],
            level1_MFK=None if mix.level1_MFK is None else mix.level1_MFK[busy],
            quantiles_MKQ=None if mix.quantiles_MKQ is None else mix.quantiles_MKQ[busy],
        ),
        recalibration=recalibration,
        thresholds=np.full(len(labels), 0.5, np.float32),
        left_out={name: reason for name, reason in reasons.items() if name not in members},
    )
    return ensemble, probs_NK


def _summary(ensemble: Ensemble, why_single: str, config: EnsembleConfig) -> str:
    if why_single:
        return f"best single member {ensemble.members[0]}: {why_single}"
    weights = ", ".join(f"{name} {share:.2f}" for name, share in ensemble.weights.items() if share)
    kind = ensemble.combination.kind.replace("_", " ")
    return f"{kind} of {len(ensemble.members)} members ({weights}) for {config.objective}"


def _notes(targets_NK: NDArray[np.uint8], labels: LabelSet, config: EnsembleConfig) -> tuple[str, ...]:
    positives_K = targets_NK.sum(axis=0, dtype=int)
    never = [labels.names[k] for k in np.flatnonzero(positives_K == 0)]
    always = [labels.names[k] for k in np.flatnonzero(positives_K == len(targets_NK))]
    rare = [
        f"{labels.names[k]} ({positives_K[k]})"
        for k in np.flatnonzero((positives_K > 0) & (positives_K < RARE))
    ]
    pulled = "their thresholds lean on the plug-in rule" if config.thresholds == "shrunk" else "expect noise"
    notes = []
    if never:
        notes.append(f"no positives to fit on, threshold left at 0.5: {', '.join(never)}")
    if always:
        notes.append(f"no negatives to fit on: {', '.join(always)}")
    if rare:
        notes.append(f"fewer than {RARE} positives, {pulled}: {', '.join(rare)}")
    return tuple(notes)


def _under_floor(card: Mapping[str, Any], config: EnsembleConfig) -> tuple[str, ...]:
    """What to say where rows that were not fitted on do not keep the floor under micro-F1."""
    reached = card["micro_f1"] or 0.0
    if config.micro_floor is None or reached >= config.micro_floor:
        return ()
    return (f"micro-F1 is estimated at {reached:.3f}, under the floor of {config.micro_floor:g}",)
