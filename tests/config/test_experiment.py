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
    plain = VariantConfig(name="plain", loss=LossConfig(name="focal"))
    focal = derive(plain, name="focal", swept=True)
    config = Experiment(variants=(plain, focal))
    assert [study.variant for study in config.sweep_studies] == [focal]
    of_plain = derive(config, sweep=SweepConfig(reference="plain"))
    assert [study.variant for study in of_plain.sweep_studies] == [plain]
    assert derive(config, sweep=SweepConfig(trials=0)).sweep_studies == ()
    assert Experiment(variants=(plain,)).sweep_studies == ()


def test_yaml_round_trip(tiny: Experiment) -> None:
    assert Experiment.model_validate(tiny.model_dump(mode="json")) == tiny
