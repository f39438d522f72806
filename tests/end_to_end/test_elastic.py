"""Elastic workers: allowed batch sizes, fingerprints."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from canopy.config import (
    Experiment,
    OptimConfig,
    ResourcesConfig,
    VariantConfig,
    derive,
    fingerprint,
)
from canopy.train.fleet.fleet import describe_training
from canopy.train.training_run import TrainingRun


def test_the_batch_must_be_divisible_by_every_allowed_number_of_workers() -> None:
    VariantConfig(name="v", optim=OptimConfig(batch_size=12), scale=ResourcesConfig(workers=4, min_workers=1))
    with pytest.raises(ValidationError, match=r"of each number down to scale.min_workers. Got: 16 and 3\."):
        VariantConfig(
            name="v", optim=OptimConfig(batch_size=16), scale=ResourcesConfig(workers=4, min_workers=2)
        )
    with pytest.raises(ValidationError, match=r"scale.min_workers must be at most scale.workers"):
        ResourcesConfig(workers=1, min_workers=2)


def test_fingerprints_do_not_depend_on_workers_or_compilation(tiny: Experiment) -> None:
    variant = tiny.variants[0]
    other = derive(variant, scale=derive(variant.scale, workers=2, min_workers=1, compile=True))
    assert fingerprint(other) == fingerprint(variant)
    assert describe_training(TrainingRun(other, 0, 1, "/run", "", "")).endswith("1 to 2 workers")
