"""The final stage: everybody's probabilities into one tuned decision, scored once on the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from canopy import files
from canopy.config import EnsembleConfig, fingerprint
from canopy.console import Console
from canopy.data.catalogue import Catalogue
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.model import Ensemble
from canopy.ensemble.predictions import Predictions, align, concatenate, read_predictions, write_predictions
from canopy.intervals import paired_difference, score
from canopy.metrics import decide
from canopy.rundir import LAYOUT, RunDir, stopwatch
from canopy.train.unit import Unit, fitting_part

UNIT = "ensemble"


def ensemble(
    config: EnsembleConfig, units: Sequence[Unit], catalogue: Catalogue, run: RunDir, console: Console
) -> None:
    """Do the stage, unless it is done: fit on out-of-fold (or the second half of val), score on test."""
    key = ensemble_key(config, units)
    if run.done(UNIT, key):
        console.say(UNIT, "done already")
        return
    with stopwatch() as watch:
        fitting = fitting_members(units, catalogue, run)
        rows = len(next(iter(fitting.values())))
        console.say(UNIT, f"{len(fitting)} members; fitting weights and thresholds on {rows:,} rows")
        fitted = fit_ensemble(fitting, config)
        console.say(UNIT, fitted.summary)
        tests = test_members(units, run)
        probs_NK, decisions_NK = fitted.predict({name: p.probs_NK for name, p in tests.items()})
        first = next(iter(tests.values()))
        assert first.targets_NK is not None
        result = Predictions(first.ids, probs_NK, first.labels, targets_NK=first.targets_NK)
        scores = {
            "members": member_scores(fitting, tests, config, console),
            "ensemble": score(
                first.targets_NK, decisions_NK, probs_NK, first.labels, config.bootstrap, config.seed
            ),
        }
        best = max(scores["members"], key=lambda name: scores["members"][name]["macro_f1"])
        scores["versus"] = versus(first, decisions_NK, fitting[best], tests[best], best, config)
        fitted.scored(scores["ensemble"]).save(run.path(UNIT, "ensemble.json"))
        write_predictions(run.path(UNIT, "test.parquet"), result)
        files.write_json(run.path(UNIT, "scores.json"), scores)
    run.finish(UNIT, key, **watch)


def ensemble_key(config: EnsembleConfig, units: Sequence[Unit]) -> str:
    """The stage's fingerprint: its section and every training it reads."""
    return fingerprint(LAYOUT, UNIT, config, [unit.fingerprint for unit in units])


def fitting_members(units: Sequence[Unit], catalogue: Catalogue, run: RunDir) -> dict[str, Predictions]:
    """What the ensemble is fitted on, by member: rows that chose no epoch and taught nobody."""
    parts: dict[str, list[Predictions]] = {}
    for unit in units:
        found = read_predictions(run.path(unit.directory, f"{fitting_part(unit.folds)}.parquet"))
        if unit.folds == 1:
            ids = np.array(catalogue.ids)[catalogue.rows("val", fold=1)]
            found = found.rows(np.isin(found.ids, ids))
        parts.setdefault(unit.variant.name, []).append(found)
    return dict(align({name: concatenate(found) for name, found in parts.items()}))


def test_members(units: Sequence[Unit], run: RunDir) -> dict[str, Predictions]:
    """Test probabilities by member; the mean over its folds."""
    parts: dict[str, list[Predictions]] = {}
    for unit in units:
        found = read_predictions(run.path(unit.directory, "test.parquet"))
        parts.setdefault(unit.variant.name, []).append(found)
    return dict(align({name: mean_of(found) for name, found in parts.items()}))


def mean_of(parts: Sequence[Predictions]) -> Predictions:
    """One member from predictions of the same rows by several of its models."""
    aligned = list(align({str(n): part for n, part in enumerate(parts)}).values())
    first = aligned[0]
    probs_NK = np.stack([part.probs_NK for part in aligned]).mean(axis=0, dtype=np.float64)
    return Predictions(first.ids, probs_NK.astype(np.float32), first.labels, targets_NK=first.targets_NK)


def member_scores(
    fitting: Mapping[str, Predictions],
    tests: Mapping[str, Predictions],
    config: EnsembleConfig,
    console: Console,
) -> dict[str, Any]:
    """Each member on the test split: at its own tuned thresholds, and at one half."""
    scores: dict[str, Any] = {}
    for name, test in tests.items():
        assert test.targets_NK is not None
        alone = fit_alone(name, fitting[name], config)
        _, decisions_NK = alone.predict({name: test.probs_NK})
        card = score(test.targets_NK, decisions_NK, test.probs_NK, test.labels, config.bootstrap, config.seed)
        half = score(test.targets_NK, decide(test.probs_NK), None, test.labels, 100, config.seed)
        card["at_half"] = {figure: half[figure] for figure in ("micro_f1", "macro_f1")}
        scores[name] = card
        console.say(UNIT, f"{name}: test macro-F1 {card['macro_f1']:.3f}, micro-F1 {card['micro_f1']:.3f}")
    return scores


def fit_alone(name: str, fitting: Predictions, config: EnsembleConfig) -> Ensemble:
    """The member with thresholds tuned by the same rule on the same rows: a fair rival."""
    return fit_ensemble({name: fitting}, config)


def versus(
    test: Predictions,
    decisions_NK: Any,
    fitting: Predictions,
    rival: Predictions,
    name: str,
    config: EnsembleConfig,
) -> dict[str, Any]:
    """The paired difference in macro-F1 to the best single member, with its interval."""
    assert test.targets_NK is not None
    _, theirs_NK = fit_alone(name, fitting, config).predict({name: rival.probs_NK})
    gap = paired_difference(test.targets_NK, decisions_NK, theirs_NK)
    return {"name": name, "macro_f1": [gap.low, gap.value, gap.high]}
