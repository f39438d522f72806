"""A run directory after prepare, made without images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.support import tiny_experiment

from canopy.config import Experiment
from canopy.data.catalogue import Catalogue
from canopy.data.split import assign_splits
from canopy.labels import LabelSet
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage
from canopy.stages import prepare
from canopy.stages.context import StageContext
from canopy.storage.run_dir import RunDir

ROWS = 400
LABELS = LabelSet(("forest", "river", "road"))


def prepared_context(folder: Path, config: Experiment | None = None) -> StageContext:
    """A context whose prepare stage is done for ``config`` (None: the tiny experiment)."""
    config = config or tiny_experiment()
    context = StageContext(config, RunDir(str(folder / "run")), Console())
    targets_NK = (np.random.default_rng(0).random((ROWS, 3)) < 0.5).astype(np.uint8)
    split, fold = assign_splits(targets_NK, config.data, config.folds)
    ids = [f"c{n}" for n in range(ROWS)]
    catalogue = Catalogue(ids, ids, targets_NK, split, fold, np.array(ids), LABELS)
    catalogue.write(context.run_dir.path(Stage.PREPARE, prepare.CATALOGUE))
    context.run_dir.claim("0" * 64, ROWS, "/data")
    context.run_dir.store_config(config)
    context.run_dir.finish(Stage.PREPARE, prepare.key(context), [prepare.CATALOGUE], seconds=2.0)
    return context
