"""A choice among the members of a run, fitted to the run's stored predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from canopy.config import EnsembleConfig, Experiment, derive
from canopy.data.catalogue import Catalogue
from canopy.ensemble.fit import fit_ensemble
from canopy.ensemble.model import Ensemble
from canopy.errors import PredictionsError
from canopy.predictions.predictions import Predictions
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.stored_predictions import fitting_members

MAX_SUBSETS = 24
"""Number of subsets up to which all are compared; of more, members are added one by one, the best first."""


def refitted(run_dir: RunDir, config: Experiment, members: Sequence[str], max_members: int) -> Ensemble:
    """The ensemble of at most ``max_members`` of ``members``, fitted as the ensemble stage fits.

    Args:
        run_dir: the run directory.
        config: its config.
        members: names of variants.
        max_members: largest number of members, 1 or more.

    Raises:
        PredictionsError: when stored predictions are missing, damaged or do not match.
    """
    path = run_dir.path(Stage.PREPARE, "catalogue.parquet")
    if not files.exists(path):
        need, remedy = (
            "must hold the run's catalogue to fit other members",
            "Leave members and max_members out.",
        )
        raise PredictionsError(files.shown(path), need, "no such file", remedy)
    stored = fitting_members(run_dir, members, config.folds, Catalogue.read(path))
    chosen = best_subset(stored, max_members, config.ensemble)
    return fit_ensemble({name: stored[name] for name in chosen}, config.ensemble)


def best_subset(members: Mapping[str, Predictions], size: int, config: EnsembleConfig) -> tuple[str, ...]:
    """The ``size`` members whose mean has the least cross-fitted log loss; all, if there are no more.

    The mean stands for every combination here: it has nothing to fit but calibration, so that subsets of one
    size are compared on equal terms and in a tenth of the time. Log loss decides, as between the candidates
    of the ensemble stage, because F1 counts are noisy where labels are rare.

    Args:
        members: name -> predictions of the same rows, with targets.
        size: number of members to choose, 1 or more.
        config: folds and calibration.
    """
    names = tuple(members)
    if size >= len(names):
        return names
    if math.comb(len(names), size) <= MAX_SUBSETS:
        return min(combinations(names, size), key=lambda one: subset_loss(members, one, config))
    chosen: tuple[str, ...] = ()
    while len(chosen) < size:
        candidates = [(*chosen, name) for name in names if name not in chosen]
        chosen = min(candidates, key=lambda one: subset_loss(members, one, config))
    return tuple(name for name in names if name in chosen)


def subset_loss(members: Mapping[str, Predictions], subset: Sequence[str], config: EnsembleConfig) -> float:
    """Cross-fitted log loss of a subset's mean, each label's divided by that of its base rate."""
    kind = "mean" if len(subset) > 1 else "best_single"
    fitted = fit_ensemble(
        {name: members[name] for name in subset}, derive(config, combination=kind, bootstrap=100)
    )
    return next(candidate.relative_log_loss for candidate in fitted.search if candidate.taken)
