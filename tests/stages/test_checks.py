"""Checks of an experiment before training: what they refuse, and that their remedies suffice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support import tiny_experiment

from canopy.config import (
    DataConfig,
    EnsembleConfig,
    Experiment,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
    SearchSpace,
    SweepConfig,
    VariantConfig,
    derive,
)
from canopy.data.catalogue import Catalogue
from canopy.data.split import assign_splits
from canopy.errors import ConfigError, DataError, InputError
from canopy.labels import LabelSet
from canopy.models.network import build_model
from canopy.stages.checks import check_catalogue, check_variants, single_value_layer

LABELS = LabelSet(("forest", "river", "road"))


def catalogue(config: Experiment, rows: int) -> Catalogue:
    """``rows`` images with frequent labels, split as prepare does."""
    targets_NK = (np.random.default_rng(0).random((rows, 3)) < 0.6).astype(np.uint8)
    split, fold = assign_splits(targets_NK, config.data, config.folds)
    ids = [f"c{n}" for n in range(rows)]
    return Catalogue(ids, ids, targets_NK, split, fold, np.array(ids), LABELS)


def experiment(**changes: Any) -> Experiment:
    """The shares of the planet32 preset."""
    data = DataConfig(source="kaggle", val_fraction=0.15, test_fraction=0.2)
    return Experiment(**{"data": data, "variants": (VariantConfig(name="v"),), **changes})


def applied(config: Experiment, option: str) -> Experiment:
    """``config`` after following one option of a remedy."""
    option = option[0].lower() + option[1:]
    if found := re.match(r"raise data\.val_fraction to (0\.\d+)", option):
        return derive(config, data=derive(config.data, val_fraction=float(found[1])))
    if found := re.match(r"lower ensemble\.folds to (\d+)", option):
        return derive(config, ensemble=derive(config.ensemble, folds=int(found[1])))
    if option.startswith("train in three folds"):
        return derive(config, folds=3)
    raise AssertionError(option)


@pytest.mark.parametrize("rows", [20, 30, 60, 100, 130, 150, 200, 250])
@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("ensemble_folds", [4, 5, 8])
def test_every_remedy_for_too_few_images_suffices(rows: int, folds: int, ensemble_folds: int) -> None:
    config = experiment(folds=folds, ensemble=EnsembleConfig(folds=ensemble_folds))
    try:
        check_catalogue(config, catalogue(config, rows))
    except DataError as error:
        options = error.remedy.rstrip(".").split(", or ")
        most = re.fullmatch(r"use at least (\d+) images", options[-1][0].lower() + options[-1][1:])
        assert most, options
        check_catalogue(config, catalogue(config, int(most[1])))
        for option in options[:-1]:
            changed = applied(config, option)
            check_catalogue(changed, catalogue(changed, rows))
    else:
        assert rows > 20


def test_200_images_under_planet32_are_refused_with_what_is_missing() -> None:
    config = experiment()
    with pytest.raises(DataError, match=r"at least 20 rows in the second half of val .*Got: 15 of 200"):
        check_catalogue(config, catalogue(config, 200))


def test_labels_of_the_ensembles_settings_must_be_known() -> None:
    for ensemble in (EnsembleConfig(exclusive=("forest,ocean",)), EnsembleConfig(costs={"ocean": (1, 2)})):
        config = experiment(ensemble=ensemble)
        with pytest.raises(InputError, match="ocean"):
            check_catalogue(config, catalogue(config, 1000))


def test_a_loss_that_does_not_fit_the_labels_is_named() -> None:
    loss = LossConfig(name="weighted_bce", class_weights=(1.0, 2.0))
    config = experiment(variants=(VariantConfig(name="v", loss=loss),))
    with pytest.raises(InputError, match=r"variant v: .*class_weights"):
        check_catalogue(config, catalogue(config, 1000))


def test_a_test_split_without_labels_is_refused() -> None:
    config = experiment()
    found = catalogue(config, 1000)
    found.targets_NK[found.rows("test")] = 0
    with pytest.raises(DataError, match="test split"):
        check_catalogue(config, found)


def variant(batch_size: int, workers: int, **model: Any) -> VariantConfig:
    """A small network with batch norm."""
    return VariantConfig(
        name="v",
        model=ModelConfig(**{"backbone": "test_resnet", **model}),
        optim=OptimConfig(batch_size=batch_size),
        scale=ResourcesConfig(workers=workers),
    )


def with_variant(one: VariantConfig, size: int) -> Experiment:
    return derive(tiny_experiment(), variants=(one,), data=derive(tiny_experiment().data, image_size=size))


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("model", [{}, {"head": "mlp"}, {"backbone": "test_vit", "input_size": 160}])
def test_batch_norm_is_refused_exactly_where_torch_cannot_train_on_one_image(
    size: int, model: dict[str, Any]
) -> None:
    one = variant(2, 2, **model)
    network = build_model(derive(one.model, pretrained=False), 3).train()
    side = one.model.input_size or size
    try:
        network(torch.rand(1, 3, side, side))
        trains = True
    except ValueError:
        trains = False
    assert (single_value_layer(one, size) is None) == trains
    if trains:
        check_variants(with_variant(one, size))
    else:
        with pytest.raises(ConfigError, match=r"optim\.batch_size must be at least 4.*Got: 2\. Raise"):
            check_variants(with_variant(one, size))
        check_variants(with_variant(variant(4, 2, **model), size))
        check_variants(with_variant(variant(2, 1, **model), size))


@pytest.mark.parametrize(
    ("space", "text"),
    [
        (
            {"model.backbone": ["test_resnet", "resnt18"]},
            r"sweep.space: model.backbone must have values.*'resnt18'",
        ),
        (
            {"augment.crop": [16, 64]},
            r"sweep.space: augment.crop must be at most data.image_size. Got: 64 and 32",
        ),
    ],
)
def test_every_choice_of_a_sweep_is_tried_before_it_starts(space: dict[str, Any], text: str) -> None:
    config = derive(tiny_experiment(), sweep=SweepConfig(space=SearchSpace(space)))
    with pytest.raises(ConfigError, match=text):
        check_variants(config)


def test_a_sweep_of_fitting_choices_is_accepted() -> None:
    space = SearchSpace({"model.backbone": ("test_resnet", "test_efficientnet"), "augment.crop": (16, 32)})
    check_variants(derive(tiny_experiment(), sweep=SweepConfig(space=space)))


def test_a_swept_rank_of_lora_needs_linear_layers(tmp_path: Path) -> None:
    space = SearchSpace({"finetune.lora_rank": [0, 4]})
    tiny = tiny_experiment(variants=1)
    model = derive(tiny.variants[0].model, weights=str(tmp_path / "w.safetensors"))
    one = derive(tiny.variants[0], model=model)
    config = derive(tiny, variants=(one,), sweep=SweepConfig(space=space))
    with pytest.raises(
        ConfigError, match=r"finetune.lora_rank must have values.*needs a backbone with linear"
    ):
        check_variants(config, "none")


def test_choices_must_fit_every_variant_that_takes_them() -> None:
    tiny = tiny_experiment(variants=2)
    first, second = tiny.variants
    two = derive(second, scale=derive(second.scale, workers=2))
    odd = SweepConfig(space=SearchSpace({"optim.batch_size": [32, 33]}))
    check_variants(derive(tiny, variants=(first, derive(two, swept=False)), sweep=odd), "none")
    with pytest.raises(ConfigError, match=r"sweep.space: optim.batch_size must have values that fit variant"):
        check_variants(derive(tiny, variants=(first, two), sweep=odd), "none")


def test_at_equal_cost_the_length_must_fit_every_variant_that_takes_it() -> None:
    tiny = tiny_experiment(variants=2, epochs=6)
    first, second = tiny.variants
    averaged = derive(second, finetune={"swa_epochs": 4})
    settings = {"space": {"model.input_size": [32, 48]}, "equal_cost": True, "epochs": 4, "trials": 4}
    config = derive(tiny, variants=(first, averaged), sweep=SweepConfig.model_validate(settings))
    with pytest.raises(ConfigError, match=r"model.input_size must have values that fit variant resnet-cbam"):
        check_variants(config, "none")
