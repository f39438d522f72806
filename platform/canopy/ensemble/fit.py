"""Fitting an ensemble: members in, one tuned and honestly estimated decision out.

Only fitting data (out-of-fold probabilities, or a part of validation that selected nothing) may come
in here; the test split is scored afterwards, by the caller, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from canopy.config import EnsembleConfig, derive
from canopy.ensemble.calibrate import Calibration
from canopy.ensemble.candidates import KINDS, Evidence, Kind, fit_combination
from canopy.ensemble.choice import Search, score_card, search
from canopy.ensemble.crossfit import Calibrator, Sample, recalibrate
from canopy.ensemble.folds import folds_of, sample_of
from canopy.ensemble.members import Predictions, align
from canopy.ensemble.model import Ensemble
from canopy.ensemble.objective import MapClasses, costs_of, fit_thresholds
from canopy.errors import PredictionsError
from canopy.labels import LabelSet

RARE = 10
"""Classes with fewer positives than this are named."""
REFIT = 8
"""The winner's curves and weights are refitted on this many times more rows than were searched."""
CHUNK = 65536
"""Rows combined at a time."""


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
    groups = exclusive_groups(config, labels)
    targets_NK = _targets(aligned, config)
    kept, left_out = _distinct(aligned)
    sample = _sample(kept, targets_NK, labels, config, groups)
    kept, sample, useless = _informative(kept, sample, config)
    left_out |= useless
    found, calibrator = search(sample, _kinds(config, len(kept)), config)
    if len(sample.rows) < len(targets_NK):
        sample = _sample(
            kept, targets_NK, labels, derive(config, search_rows=REFIT * config.search_rows), groups
        )
        calibrator = Calibrator(sample, config)
    ensemble = _refit(kept, targets_NK, sample, calibrator, found.verdict.kind, config, map_classes)
    ensemble = _without_idle(ensemble, left_out)
    searched = found.sample
    return replace(
        ensemble,
        labels=labels,
        exclusive=tuple(tuple(labels.names[k] for k in group) for group in groups),
        summary=_summary(found, ensemble, config),
        notes=_notes(targets_NK, labels, config),
        estimated=score_card(searched, found.nested, found.single, labels, config) | {"chosen": found.chosen},
        fitted_on={
            "rows": len(targets_NK),
            "searched_rows": len(searched.rows),
            "hash": data_hash(aligned),
            "positives": dict(zip(labels.names, targets_NK.sum(axis=0, dtype=int).tolist(), strict=True)),
        },
        search=found.verdict.table,
    )


def exclusive_groups(config: EnsembleConfig, labels: LabelSet) -> tuple[tuple[int, ...], ...]:
    """Columns of each exclusive group.

    Raises:
        DataError: when a group names an unknown label.
        PredictionsError: when a group holds fewer than two labels, or a label stands in two groups.
    """
    groups = [[name.strip() for name in group.split(",") if name.strip()] for group in config.exclusive]
    flat = [name for group in groups for name in group]
    for group in groups:
        twice = next((name for name in group if flat.count(name) > 1), None)
        if len(group) < 2 or twice:
            problem = "must hold two or more labels, each in one group only"
            raise PredictionsError("ensemble.exclusive", problem, ",".join(group), "Correct the group.")
    return tuple(tuple(labels.index(name) for name in group) for group in groups)


def data_hash(aligned: Mapping[str, Predictions]) -> str:
    """16 hex digits over ids, targets and every member's probabilities."""
    digest = hashlib.sha256()
    for name, member in aligned.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(member.probs_NK).data)
    first = next(iter(aligned.values()))
    digest.update("\n".join(first.ids.tolist()).encode())
    if first.targets_NK is not None:
        digest.update(np.ascontiguousarray(first.targets_NK).data)
    return digest.hexdigest()[:16]


def _targets(aligned: Mapping[str, Predictions], config: EnsembleConfig) -> NDArray[np.uint8]:
    targets_NK = next(iter(aligned.values())).targets_NK
    if targets_NK is None:
        names = ", ".join(aligned)
        raise PredictionsError("The fitting data", "must hold targets", f"none in {names}", "Add the truth.")
    fewest = 4 * config.folds
    if len(targets_NK) < fewest:
        remedy = "Fit on more rows, or lower ensemble.folds."
        raise PredictionsError(
            "The fitting data", f"must hold at least {fewest} rows", len(targets_NK), remedy
        )
    return targets_NK


def _distinct(aligned: Mapping[str, Predictions]) -> tuple[dict[str, Predictions], dict[str, str]]:
    """Members that say the same everywhere, collapsed onto the first of them by name."""
    kept: dict[str, Predictions] = {}
    left_out = {}
    by_sum: dict[float, list[str]] = {}
    for name, member in aligned.items():
        alike = by_sum.setdefault(float(member.probs_NK.sum(dtype=np.float64)), [])
        twin = next((n for n in alike if np.array_equal(aligned[n].probs_NK, member.probs_NK)), None)
        if twin is None:
            alike.append(name)
            kept[name] = member
        else:
            left_out[name] = f"the same as {twin}"
    return kept, left_out


def _sample(
    kept: Mapping[str, Predictions],
    targets_NK: NDArray[np.uint8],
    labels: LabelSet,
    config: EnsembleConfig,
    groups: tuple[tuple[int, ...], ...],
) -> Sample:
    ids_N = next(iter(kept.values())).ids
    rows = sample_of(ids_N, config.search_rows, config.seed)
    return Sample(
        rows=rows,
        members_MNK=np.stack([member.probs_NK[rows] for member in kept.values()]),
        targets_NK=targets_NK[rows],
        ids_N=ids_N[rows],
        fold_N=folds_of(ids_N[rows], targets_NK[rows], config.folds, config.seed),
        folds=config.folds,
        groups=groups,
        costs_K2=costs_of(config, labels),
    )


def _informative(
    kept: dict[str, Predictions], sample: Sample, config: EnsembleConfig
) -> tuple[dict[str, Predictions], Sample, dict[str, str]]:
    """Without the members that, calibrated, predict held-out folds no better than the base rate does."""
    calibrator = Calibrator(sample, derive(config, calibration="platt"))
    losses_M = np.sum([calibrator.loss(frozenset(), "platt", fold) for fold in calibrator.folds], axis=0)
    present = int(calibrator.counts_FM2KB[:, 0, 1].any(axis=2).sum())
    telling: NDArray[np.bool_] = np.less(losses_M, present)
    if telling.all() or not telling.any():
        return kept, sample, {}
    useless = {name: "no better than base rates" for name, ok in zip(kept, telling, strict=True) if not ok}
    return (
        {name: member for name, member in kept.items() if name not in useless},
        replace(sample, members_MNK=sample.members_MNK[telling]),
        useless,
    )


def _kinds(config: EnsembleConfig, members: int) -> tuple[Kind, ...]:
    if members == 1:
        return ("best_single",)
    return KINDS if config.combination == "auto" else (config.combination,)


def _refit(
    kept: Mapping[str, Predictions],
    targets_NK: NDArray[np.uint8],
    sample: Sample,
    calibrator: Calibrator,
    kind: Kind,
    config: EnsembleConfig,
    map_classes: MapClasses,
) -> Ensemble:
    """The winner: curves and weights from the sample, thresholds from all rows, exactly."""
    calibrated_MNK, curves = calibrator.apply(sample, frozenset())
    mix = fit_combination(
        kind,
        Evidence(calibrated_MNK, sample.targets_NK, sample.ids_N, sample.fold_N),
        config.bags,
        config.seed,
    )
    sample_probs_NK, recalibration = recalibrate(mix.apply(list(calibrated_MNK)), sample.targets_NK, mix)
    probs_NK = np.empty(targets_NK.shape, np.float32)
    if len(sample.rows) < len(probs_NK):
        for start in range(0, len(probs_NK), CHUNK):
            part = slice(start, start + CHUNK)
            chunk = [c.apply(m.probs_NK[part]) for c, m in zip(curves, kept.values(), strict=True)]
            probs_NK[part] = recalibration.apply(mix.apply(chunk))
    probs_NK[sample.rows] = sample_probs_NK
    return Ensemble(
        labels=next(iter(kept.values())).labels,
        members=tuple(kept),
        calibrations=tuple(curves),
        combination=mix,
        recalibration=recalibration,
        thresholds=fit_thresholds(probs_NK, targets_NK, config, sample.costs_K2, map_classes),
    )


def _without_idle(ensemble: Ensemble, left_out: dict[str, str]) -> Ensemble:
    """Members with no weight anywhere need not be asked at prediction time."""
    mix = ensemble.combination
    busy = mix.weights_MK.any(axis=1)
    idle = {name: "no weight" for name, used in zip(ensemble.members, busy, strict=True) if not used}
    calibrations: Sequence[Calibration] = ensemble.calibrations
    return replace(
        ensemble,
        members=tuple(name for name in ensemble.members if name not in idle),
        calibrations=tuple(c for c, used in zip(calibrations, busy, strict=True) if used),
        combination=replace(
            mix,
            weights_MK=mix.weights_MK[busy],
            level1_MFK=None if mix.level1_MFK is None else mix.level1_MFK[busy],
            quantiles_MKQ=None if mix.quantiles_MKQ is None else mix.quantiles_MKQ[busy],
        ),
        left_out={**left_out, **idle},
    )


def _summary(found: Search, ensemble: Ensemble, config: EnsembleConfig) -> str:
    weights = ", ".join(f"{name} {share:.2f}" for name, share in ensemble.weights.items() if share)
    if ensemble.combination.kind != "best_single":
        return f"{ensemble.combination.kind} of {len(ensemble.members)} members ({weights}) for {config.objective}"
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
