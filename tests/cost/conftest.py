"""An experiment that trains on GPUs."""

from __future__ import annotations

import pytest
from tests.support import REPOSITORY

from canopy.config import BudgetConfig, Experiment, SweepConfig, derive

CLUSTER = str(REPOSITORY / "cluster.yaml")


@pytest.fixture
def on_gpus(tiny: Experiment) -> Experiment:
    """Two variants of test size on one and on two GPUs, in three folds, with a sweep."""
    one, _, two = tiny.variants
    variants = [derive(v, scale=derive(v.scale, gpus_per_worker=1, cpus_per_worker=4)) for v in (one, two)]
    sweep = SweepConfig(trials=5, concurrent=2, epochs=2, space=None)
    return derive(tiny, variants=tuple(variants), folds=3, sweep=sweep, budget=BudgetConfig(cluster=CLUSTER))
