from __future__ import annotations

import pytest
from pydantic import ValidationError

from canopy.config import (
    DataConfig,
    Experiment,
    LossConfig,
    ModelConfig,
    ScaleConfig,
    SweepConfig,
    VariantConfig,
    derive,
    fingerprint_content,
    fingerprint,
)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: LossConfig(gamma=-1), "gamma"),
        (lambda: LossConfig(name="focal", alpha=1.5), "alpha"),
        (lambda: DataConfig(val_fraction=0.5, test_fraction=0.5), "data.val_fraction and data.test_fraction"),
        (lambda: ScaleConfig(workers=2, gpus_per_worker=0.5), "scale.gpus_per_worker"),
        (lambda: ModelConfig(pretrained=True, weights="w.safetensors"), "model.weights"),
        (lambda: SweepConfig(gamma=(3, 1)), "sweep.gamma"),
        (lambda: VariantConfig(name="a", swept_loss=True), "swept_loss"),
        (lambda: VariantConfig(name="a", scale=ScaleConfig(workers=3)), "optim.batch_size"),
        (lambda: VariantConfig(name="no/slash"), "name"),
        (lambda: Experiment(variants=()), "variants"),
        (lambda: Experiment(variants=(VariantConfig(name="a"),) * 2), "distinct names"),
        (
            lambda: Experiment(variants=(VariantConfig(name="a"),), sweep=SweepConfig(reference="b")),
            "reference",
        ),
        (lambda: DataConfig.model_validate({"rot": "x"}), "rot"),
    ],
)
def test_refuses_and_names_the_field(make, told):  # type: ignore[no-untyped-def]
    with pytest.raises(ValidationError, match=told):
        make()


def test_sections_are_frozen(tiny: Experiment) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        tiny.folds = 3


def test_derive_validates(tiny: Experiment) -> None:
    assert derive(tiny, folds=4).folds == 4
    with pytest.raises(ValidationError):
        derive(tiny, folds=0)


def test_fingerprint_covers_what_and_not_where(tiny: Experiment) -> None:
    moved = derive(tiny, data=derive(tiny.data, root="/elsewhere"), fleet={"capacity_timeout_s": 5})
    variant = tiny.variants[0]
    scaled = derive(tiny, variants=(derive(variant, scale=ScaleConfig(workers=2)), *tiny.variants[1:]))
    taught = derive(tiny, variants=(derive(variant, seed=9), *tiny.variants[1:]))
    assert fingerprint(moved) == fingerprint(scaled) == fingerprint(tiny)
    assert fingerprint(taught) != fingerprint(tiny)
    assert "root" not in fingerprint_content(tiny)["data"]


def test_yaml_round_trip(tiny: Experiment) -> None:
    assert Experiment.model_validate(tiny.model_dump(mode="json")) == tiny
