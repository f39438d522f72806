"""Fitting an ensemble: members in, one tuned and honestly estimated decision out.

Only fitting data (out-of-fold probabilities, or a part of validation that selected nothing) may come
in here; the test split is scored afterwards, by the caller, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from canopy.config import EnsembleConfig, derive
from canopy.ensemble.calibrate import Calibration
from canopy.ensemble.candidates import KINDS, Evidence, Kind, fit_combination
from canopy.ensemble.choice import Search, score_card, search
from canopy.ensemble.combine import Combination
from canopy.ensemble.crossfit import Calibrator, Sample, recalibrate
from canopy.ensemble.logistic import logit
from canopy.ensemble.members import Predictions, align
from canopy.ensemble.model import Ensemble
from canopy.ensemble.objective import MapClasses, fit_thresholds
from canopy.ensemble.prepare import (
    data_hash,
    distinct,
    exclusive_groups,
    informative,
    sample_rows,
    targets_of,
)
from canopy.labels import LabelSet

RARE = 10
"""Classes with fewer positives than this are named."""
REFIT = 8
"""The winner's curves and weights are refitted on this many times more rows than were searched."""
CHUNK = 65536
"""Rows combined at a time."""


@dataclass(frozen=True, eq=False)
class Winner:
    """What the search chose, refitted, without thresholds.

    Args:
        members: names of the members it reads.
        curves: their calibrations.
        combination: of the calibrated members.
        recalibration: of the combined score.
        left_out: members without weight, each with the reason.
        found: the search behind it.
        sample_probs_NK: probabilities of the sample's rows, members calibrated without a row's own fold.
        rows: of the sample.
    """

    members: tuple[str, ...]
    curves: tuple[Calibration, ...]
    combination: Combination
    recalibration: Calibration
    left_out: dict[str, str]
    found: Search
    sample_probs_NK: NDArray[np.float32]
    rows: int

    def probabilities(self, members: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """The ensemble's probabilities (N, K), some rows at a time."""
        arrays = [members[name] for name in self.members]
        probs_NK = np.empty(arrays[0].shape, np.float32)
        for start in range(0, len(probs_NK), CHUNK):
            part = slice(start, start + CHUNK)
            calibrated = [curve.apply(a[part]) for curve, a in zip(self.curves, arrays, strict=True)]
            probs_NK[part] = self.recalibration.apply(self.combination.apply(calibrated))
        return probs_NK


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
    labels = next(iter(aligned.values())).labels
    targets_NK = targets_of(aligned, config)
    winner = find_winner(aligned, targets_NK, config)
    if winner.rows == len(targets_NK):
        probs_NK = winner.sample_probs_NK
    else:
        probs_NK = winner.probabilities({name: aligned[name].probs_NK for name in winner.members})
    return finish(winner, probs_NK, targets_NK, labels, data_hash(aligned), config, map_classes)


def find_winner(
    aligned: Mapping[str, Predictions],
    targets_NK: NDArray[np.uint8],
    config: EnsembleConfig,
) -> Winner:
    """Search on at most ``config.search_rows`` rows, refit on at most ``REFIT`` times as many.

    Args:
        aligned: members on the same rows, sorted by id and by name.
        targets_NK: truth of these rows.
        config: what to aim at, and what to choose from.
    """
    labels = next(iter(aligned.values())).labels
    kept, left_out = distinct(aligned)
    sample = sample_rows(kept, targets_NK, labels, config)
    kept, sample, useless = informative(kept, sample, config)
    kinds: tuple[Kind, ...] = KINDS if config.combination == "auto" else (config.combination,)
    found, calibrator = search(sample, kinds if len(kept) > 1 else ("best_single",), config)
    if len(sample.rows) < len(targets_NK):
        larger = derive(config, search_rows=REFIT * config.search_rows)
        sample = sample_rows(kept, targets_NK, labels, larger)
        calibrator = Calibrator(sample, config)
    with threadpool_limits(limits=1, user_api="blas"):
        return _refit(tuple(kept), sample, calibrator, found, left_out | useless, config)


def finish(
    winner: Winner,
    probs_NK: NDArray[np.float32],
    targets_NK: NDArray[np.uint8],
    labels: LabelSet,
    fingerprint: str,
    config: EnsembleConfig,
    map_classes: MapClasses = map,
) -> Ensemble:
    """The ensemble: the winner with exact thresholds on all rows, and what is known about it.

    Args:
        winner: from :func:`find_winner`.
        probs_NK: its probabilities of all fitting rows, in any order.
        targets_NK: truth of these rows.
        labels: names of the K classes.
        fingerprint: hash of the data.
        config: rule and objective of the thresholds.
        map_classes: a parallel ``map`` over classes, where there is one.
    """
    found = winner.found
    groups = exclusive_groups(config, labels)
    card = score_card(found.sample, found.nested, found.single, labels, config)
    ensemble = Ensemble(
        labels=labels,
        members=winner.members,
        calibrations=winner.curves,
        combination=winner.combination,
        recalibration=winner.recalibration,
        thresholds=fit_thresholds(probs_NK, targets_NK, config, found.sample.costs_K2, map_classes),
        exclusive=tuple(tuple(labels.names[k] for k in group) for group in groups),
        notes=_notes(targets_NK, labels, config),
        estimated=card | {"chosen": found.chosen},
        fitted_on={
            "rows": len(targets_NK),
            "searched_rows": len(found.sample.rows),
            "hash": fingerprint,
            "positives": dict(zip(labels.names, targets_NK.sum(axis=0, dtype=int).tolist(), strict=True)),
        },
        left_out=winner.left_out,
        search=found.verdict.table,
    )
    return replace(ensemble, summary=_summary(found, ensemble, config))


def _refit(
    names: tuple[str, ...],
    sample: Sample,
    calibrator: Calibrator,
    found: Search,
    left_out: dict[str, str],
    config: EnsembleConfig,
) -> Winner:
    calibrated_MNK, curves = calibrator.apply(sample, frozenset())
    logits_MNK = np.asarray(logit(calibrated_MNK), np.float32)
    evidence = Evidence(calibrated_MNK, logits_MNK, sample.targets_NK, sample.ids_N, sample.fold_N)
    mix = fit_combination(found.verdict.kind, evidence, config.bags, config.seed)
    scores_NK = mix.apply(list(calibrated_MNK), list(logits_MNK))
    probs_NK, recalibration = recalibrate(scores_NK, sample.targets_NK, mix)
    # members without weight need not be asked at prediction time
    busy = [bool(weights_K.any()) for weights_K in mix.weights_MK]
    return Winner(
        members=tuple(name for name, used in zip(names, busy, strict=True) if used),
        curves=tuple(curve for curve, used in zip(curves, busy, strict=True) if used),
        combination=replace(
            mix,
            weights_MK=mix.weights_MK[busy],
            level1_MFK=None if mix.level1_MFK is None else mix.level1_MFK[busy],
            quantiles_MKQ=None if mix.quantiles_MKQ is None else mix.quantiles_MKQ[busy],
        ),
        recalibration=recalibration,
        left_out=left_out | {name: "no weight" for name, used in zip(names, busy, strict=True) if not used},
        found=found,
        sample_probs_NK=probs_NK,
        rows=len(sample.rows),
    )


def _summary(found: Search, ensemble: Ensemble, config: EnsembleConfig) -> str:
    weights = ", ".join(f"{name} {share:.2f}" for name, share in ensemble.weights.items() if share)
    if ensemble.combination.kind != "best_single":
        kind = ensemble.combination.kind.replace("_", " ")
        return f"{kind} of {len(ensemble.members)} members ({weights}) for {config.objective}"
    only = len(found.verdict.table) == 1
    why = "the only member to choose from" if only else "no combination beat it in cross-fitting"
    return f"best single member {ensemble.members[0]}: {why}"


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
