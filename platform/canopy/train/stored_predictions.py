"""``fitting_members``: the stored predictions on which an ensemble may be fitted, joined by member."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from canopy.data.catalogue import Catalogue
from canopy.predictions.io import read_predictions
from canopy.predictions.predictions import Predictions, align, concatenate
from canopy.storage.run_dir import RunDir
from canopy.train.training_run import fitting_part, training_run_directory


def fitting_members(
    run_dir: RunDir, variants: Sequence[str], folds: int, catalogue: Catalogue
) -> dict[str, Predictions]:
    """Predictions to fit an ensemble on, by member: rows that neither trained a model nor chose an epoch.

    Args:
        run_dir: the run directory.
        variants: names of the variants.
        folds: number of folds of the experiment.
        catalogue: the run's catalogue.

    Raises:
        PredictionsError: when a training's predictions are missing, damaged or do not match the others'.
    """
    part = f"{fitting_part(folds)}.parquet"
    members: dict[str, Predictions] = {}
    for name in variants:
        paths = [run_dir.path(training_run_directory(name, fold), part) for fold in range(folds)]
        found = [read_predictions(path) for path in paths]
        if folds == 1:
            ids = np.array(catalogue.ids)[catalogue.rows("val", fold=1)]
            found = [one.rows(np.isin(one.ids, ids)) for one in found]
        members[name] = concatenate(found, paths)
    return dict(align(members))
