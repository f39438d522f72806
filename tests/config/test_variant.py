from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from canopy.config import (
    AUGMENT_PRESETS,
    LossConfig,
    OptimConfig,
    ResourcesConfig,
    Section,
    VariantConfig,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LossConfig(gamma=-1), "gamma"),
        (lambda: LossConfig(name="focal", alpha=1.5), r"loss.alpha must lie in \[0, 1\]. Got: 1.5"),
        (lambda: LossConfig(alpha=0.5), "loss.alpha needs loss.name focal. Got: 'bce'"),
        (lambda: LossConfig(class_weights=(1, 2)), "loss.class_weights needs loss.name weighted_bce"),
        (
            lambda: ResourcesConfig(workers=2, gpus_per_worker=0.5),
            "scale.gpus_per_worker must be a whole number",
        ),
        (
            lambda: ResourcesConfig(min_workers=3, workers=2),
            "scale.min_workers must be at most scale.workers",
        ),
        (
            lambda: VariantConfig(name="a", scale=ResourcesConfig(workers=3)),
            "variant a: optim.batch_size must be a multiple of scale.workers. Got: 64 and 3",
        ),
        (
            lambda: VariantConfig(
                name="a", optim=OptimConfig(sync_batchnorm=True), scale=ResourcesConfig(workers=2)
            ),
            "optim.sync_batchnorm needs GPUs when scale.workers is above 1",
        ),
        (lambda: VariantConfig(name="no/slash"), "name"),
        (
            lambda: VariantConfig.model_validate({"name": "a", "augment": "strong"}),
            "augment must be a section or the name of an augmentation. Got: 'strong'. Known: none, flips",
        ),
    ],
)
def test_a_broken_rule_names_the_field(make: Callable[[], Section], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make()


def test_an_augmentation_may_be_a_name() -> None:
    variant = VariantConfig.model_validate({"name": "a", "augment": "enhanced"})
    assert variant.augment == AUGMENT_PRESETS["enhanced"]


def test_numbers_of_workers() -> None:
    assert list(ResourcesConfig(workers=4, min_workers=2).counts) == [2, 3, 4]
    assert list(ResourcesConfig(workers=4).counts) == [4]
