"""Checks of an experiment that need no training: networks, batch norm, losses, ensemble settings.

:func:`check_variants` needs the config alone and runs before a job starts Ray. :func:`check_catalogue` needs
the prepared data and runs in prepare, so that no later stage fails for a reason known before training.
"""

from __future__ import annotations

from math import ceil
from typing import Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from canopy.config import (
    Experiment,
    FieldRange,
    FieldValues,
    Study,
    VariantConfig,
    set_fields,
    study_for,
    taken_fields,
)
from canopy.config.sweep_fields import READERS, number_type, sweepable_fields
from canopy.config.validation_errors import config_error
from canopy.data.catalogue import Catalogue
from canopy.ensemble.objective import costs_of
from canopy.ensemble.search_inputs import MIN_FOLDS, ROWS_PER_FOLD, exclusive_groups
from canopy.errors import ConfigError, DataError, InputError
from canopy.losses.multilabel import build_loss
from canopy.models.backbones import (
    check_input_sizes,
    check_layers,
    check_lora,
    check_weights,
    probe_backbone,
)
from canopy.models.network import MultiLabelNetwork
from canopy.sweep.equal_cost import EqualCost, check_equal_cost
from canopy.train.distillation import read_teacher, soft_labels

BUILT_FROM = ("model.", "augment.crop", "optim.batch_size", "finetune.lora_rank")
"""Beginnings of the fields that decide whether a network can be built and trained."""
WeightsCheck = Literal["none", "cached", "fetch"]
"""Which weights to check: none, those that need no hub, or all, downloading them."""


def check_variants(config: Experiment, weights: WeightsCheck = "cached") -> list[str]:
    """Refuse a network that cannot be built or trained as configured.

    Args:
        config: the experiment.
        weights: which weights to check; with any, the runs that give soft labels are checked too.

    Returns:
        For each variant with weights of its own, what was used of them, as a line.

    Raises:
        ConfigError: when a backbone is unknown or does not support the variant's options, its weights cannot
            be had or do not fit, or batch norm would see a single value per channel.
    """
    reports = []
    for variant in config.variants:
        check_variant(variant, config.data.image_size)
        if weights != "none":
            thing = f"variant {variant.name}: model.weights"
            names = [band.name for band in config.data.bands] or None
            channels = None if names is None else len(names)
            report = check_weights(variant.model, thing, weights == "fetch", channels, names)
            reports += [f"{variant.name} starts from {report}"] if report else []
            if variant.distill.run is not None:
                read_teacher(variant)
    for study in config.sweep_studies:
        check_choices(config, study)
        if config.sweep.equal_cost:
            check_equal_cost(study, config.data.image_size, config.sweep.epochs)
    return reports


def check_variant(variant: VariantConfig, image_size: int) -> None:
    """Refuse a network that cannot be built or trained on chips of ``image_size`` pixels.

    Raises:
        ConfigError: see :func:`check_variants`; weights are not checked.
    """
    probe_backbone(variant.model, variant.augment.crop or image_size)
    check_input_sizes(variant.model, variant.finetune.input_sizes)
    if variant.optim.layer_decay != 1 or variant.finetune.unfreeze_epochs:
        check_layers(variant.model)
    if variant.finetune.lora_rank:
        check_lora(variant.model, f"variant {variant.name}: finetune.lora_rank")
    check_batch_norm(variant, image_size)


def check_choices(config: Experiment, study: Study) -> None:
    """Refuse values of a search space that a variant cannot be built or trained with, each on its own.

    The variants are the swept one, and those that take the result.

    Raises:
        ConfigError: names the field and the value.
    """
    takers = [variant for variant in config.variants if study_for(config, variant) == study]
    image_size = config.data.image_size
    rule = EqualCost(study.variant, image_size) if config.sweep.equal_cost else None
    for name, domain in study.space.items():
        if name in READERS:
            continue  # it means nothing alone
        whole = number_type(sweepable_fields()[name]) is int
        for value in (domain.low, domain.high) if isinstance(domain, FieldRange) else domain:
            given = int(value) if whole and isinstance(value, float) else value
            thing = f"{study.option}: {name}"
            if name == "augment.crop" and isinstance(given, int) and given > image_size:
                got = f"{given} and {image_size}"
                raise ConfigError(thing, "must be at most data.image_size", got, "Lower it.")
            check_choice(thing, study.variant, {name: given}, image_size)
            values = {name: given} if rule is None else rule.at_full_length({name: given})
            for taker in takers:
                if taker.name != study.name and (taken := taken_fields(taker, values)):
                    check_choice(thing, taker, taken, image_size)


def check_choice(thing: str, variant: VariantConfig, values: FieldValues, image_size: int) -> None:
    """Refuse values of fields that ``variant`` cannot be built or trained with.

    Args:
        thing: name of the option that gave them.
        variant: takes the values.
        values: the values, that of the option first.
        image_size: height and width of a chip in pixels.

    Raises:
        ConfigError: names the value.
    """
    try:
        changed = set_fields(variant, values)
        if any(name.startswith(BUILT_FROM) for name in values):
            check_variant(changed, image_size)
    except (InputError, ValidationError) as error:
        problem = config_error("the variant", error) if isinstance(error, ValidationError) else error
        need = f"must have values that fit variant {variant.name}: {problem.thing} {problem.constraint}"
        got = f"{next(iter(values.values()))!r}: {problem.got}"
        raise ConfigError(thing, need, got, problem.remedy) from None


def check_batch_norm(variant: VariantConfig, image_size: int) -> None:
    """Refuse one image per worker where a batch-norm layer would see one value per channel.

    Batch norm needs at least two values per channel while it trains. One image gives a layer as many values
    as its feature map has pixels, so only maps of 1 x 1 pixel and layers behind the pooling are affected.

    Args:
        variant: model, batch size and workers.
        image_size: side of a chip, pixels.

    Raises:
        ConfigError: names the layer.
    """
    optim, workers = variant.optim, variant.scale.workers
    if optim.batch_size > workers or (optim.sync_batchnorm and workers > 1):
        return
    layer = single_value_layer(variant, variant.augment.crop or image_size)
    if layer is not None:
        raise ConfigError(
            f"variant {variant.name}: optim.batch_size",
            f"must be at least {2 * workers}, two images for each of {workers} workers: batch norm ({layer}) "
            "cannot train on one",
            optim.batch_size,
            f"Raise optim.batch_size to {2 * workers}"
            + (", or lower scale.workers." if workers > 1 else ", or take a backbone without batch norm."),
        )


def single_value_layer(variant: VariantConfig, size: int) -> str | None:
    """Name of the first batch-norm layer that sees one value per channel for one image of ``size`` pixels.

    Runs the network on torch's meta device: shapes only, no weights are drawn or downloaded.

    Raises:
        ConfigError: when the backbone is unknown or does not support the variant's options.
    """
    plain = variant.model.untrained
    features = probe_backbone(plain, size)
    found: list[str] = []
    with torch.device("meta"):
        network = MultiLabelNetwork(plain, features, num_labels=2).train()

        def watch(name: str) -> None:
            def note(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
                if inputs[0].numel() == 2 * inputs[0].shape[1]:  # two images, one value each
                    found.append(name)

            network.get_submodule(name).register_forward_pre_hook(note)

        for name, module in network.named_modules():
            if isinstance(module, _BatchNorm):
                watch(name)
        network(torch.zeros(2, 3, size, size))
    return found[0] if found else None


def check_catalogue(config: Experiment, catalogue: Catalogue) -> None:
    """Refuse an experiment that could not be trained or whose ensemble could not be fitted on this data.

    Raises:
        InputError: when a loss does not fit the labels, the ensemble's settings name an unknown label, or
            there are too few rows to fit the ensemble on.
    """
    check_losses(config, catalogue)
    exclusive_groups(config.ensemble, catalogue.labels)
    costs_of(config.ensemble, catalogue.labels)
    check_fitting_rows(config, catalogue)


def check_soft_labels(config: Experiment, catalogue: Catalogue) -> None:
    """Refuse soft labels of other chips, labels or splits than those of a new catalogue.

    Raises:
        InputError: see :func:`canopy.train.distillation.soft_labels`.
    """
    for variant in config.variants:
        soft_labels(variant, catalogue)


def check_losses(config: Experiment, catalogue: Catalogue) -> None:
    """Refuse a loss that does not fit the labels of some fold.

    Raises:
        InputError: names the variant, and the label or the number of weights.
    """
    for variant in config.variants:
        for fold in range(config.folds):
            rows = catalogue.rows("train", not_fold=fold if config.folds > 1 else None)
            counts_K = catalogue.targets_NK[rows].sum(0, dtype=np.int64)
            try:
                build_loss(variant.loss, counts_K, len(rows), catalogue.labels.names)
            except InputError as error:
                thing = f"variant {variant.name}: {error.thing}"
                raise type(error)(thing, error.constraint, error.got, error.remedy) from None


def check_fitting_rows(config: Experiment, catalogue: Catalogue) -> None:
    """Refuse a data set with too few fitting rows, or whose fitting or test rows have no labels.

    The ensemble is fitted on the training rows where there are several folds, else on the second half of the
    validation rows, and scored on the test split.

    Raises:
        DataError: with a remedy that suffices.
    """
    several = config.folds > 1
    fitting = catalogue.rows("train") if several else catalogue.rows("val", fold=1)
    called = "training rows" if several else "rows in the second half of val"
    need = ROWS_PER_FOLD * config.ensemble.folds
    if len(fitting) < need:
        raise DataError(
            "The data set",
            f"must leave at least {need} {called} to fit the ensemble on (ensemble.folds is "
            f"{config.ensemble.folds})",
            f"{len(fitting)} of {len(catalogue)} images",
            more_rows(config, catalogue, len(fitting)),
        )
    parts = {called: fitting, "rows in the test split": catalogue.rows("test")}
    for name, rows in parts.items():
        if not catalogue.targets_NK[rows].any():
            got = f"none on {len(rows)} {name}"
            raise DataError("The data set", f"must have a label on {name}", got, "Add labelled images.")


def more_rows(config: Experiment, catalogue: Catalogue, fitting: int) -> str:
    """Config changes that give the ensemble enough rows, as a sentence; each change suffices alone."""
    need, least = ROWS_PER_FOLD * config.ensemble.folds, ROWS_PER_FOLD * MIN_FOLDS
    rows, options = len(catalogue), []
    if fitting >= least:
        options.append(f"lower ensemble.folds to {fitting // ROWS_PER_FOLD}")
    if config.folds == 1:
        # Half of val serves selection; one row more than twice as many covers both roundings.
        fraction = ceil(100 * (2 * need + 1) / rows) / 100
        if fraction + config.data.test_fraction <= 0.8:
            options.append(f"raise data.val_fraction to {fraction:g}")
        if len(catalogue.rows("train")) >= need:
            options.append("train in three folds (--folds 3), which fits it on the training rows")
        total = ceil((2 * need + 1) / config.data.val_fraction) if config.data.val_fraction else 0
    else:
        total = ceil(rows * (need + 1) / max(fitting, 1))
    options.append(f"use at least {total} images" if total > rows else "use more images")
    text = ", or ".join(options)
    return f"{text[0].upper()}{text[1:]}."
