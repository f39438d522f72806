from __future__ import annotations

import pytest
from pydantic import ValidationError

from canopy.config import AugmentConfig, Experiment, LossConfig, SweepConfig, VariantConfig, derive


def test_variants_are_there_and_have_distinct_names() -> None:
    with pytest.raises(ValidationError, match="variants"):
        Experiment(variants=())
    with pytest.raises(ValidationError, match=r"variants must have distinct names. Got: 'a' twice"):
        Experiment(variants=(VariantConfig(name="a"),) * 2)


def test_the_sweeps_reference_is_a_variant() -> None:
    with pytest.raises(ValidationError, match=r"sweep.reference must name a variant. Got: 'b'. Known: a"):
        Experiment(variants=(VariantConfig(name="a"),), sweep=SweepConfig(reference="b"))


def test_crops_fit_the_images() -> None:
    variant = VariantConfig(name="a", augment=AugmentConfig(crop=80))
    with pytest.raises(ValidationError, match=r"variant a: augment.crop must be at most data.image_size"):
        Experiment(variants=(variant,))


def test_the_reference_of_the_sweep() -> None:
    plain = VariantConfig(name="plain")
    focal = VariantConfig(name="focal", loss=LossConfig(name="focal"), swept_loss=True)
    config = Experiment(variants=(plain, focal))
    assert config.sweep_reference == focal
    assert derive(config, sweep=SweepConfig(reference="plain")).sweep_reference == plain
    assert derive(config, sweep=SweepConfig(trials=0)).sweep_reference is None
    assert Experiment(variants=(plain,)).sweep_reference is None


def test_yaml_round_trip(tiny: Experiment) -> None:
    assert Experiment.model_validate(tiny.model_dump(mode="json")) == tiny
