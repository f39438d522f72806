"""``Experiment``: all sections together, and the rules that hold between them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from pydantic import Field, model_validator

from canopy.config.augment import AugmentConfig
from canopy.config.bands import check_colors
from canopy.config.budget import BudgetConfig
from canopy.config.data import DataConfig
from canopy.config.ensemble import EnsembleConfig
from canopy.config.fleet import FleetConfig
from canopy.config.section import NOT_FINGERPRINTED, Section
from canopy.config.study import Study, check_sweep, members_of, studies_of
from canopy.config.sweep import SweepConfig
from canopy.config.tracking import TrackingConfig
from canopy.config.variant import VariantConfig
from canopy.errors import ConfigError, refuse_credentials


def texts_of(value: object, name: str) -> Iterator[tuple[str, str]]:
    """Dotted name and content of every text in a section, and in its sections and lists."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Section):
        for field in type(value).model_fields:
            yield from texts_of(getattr(value, field), f"{name}.{field}".lstrip("."))
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from texts_of(item, f"{name}.{number}")


class Experiment(Section):
    """The complete config of one run."""

    preset: str = "custom"
    """Named experiment to start from (demo, planet32, planet32-long, planet32-transfer, amazon,
    bigearthnet); it also names the default run directory. Default: the config of an existing ``--run-dir``,
    else demo."""
    data: DataConfig = DataConfig()
    """The images, their labels and the split."""
    variants: tuple[VariantConfig, ...] = Field(min_length=1)
    """The models to train, 1 or more; each is a member of the ensemble."""
    folds: int = Field(default=1, ge=1, le=20)
    """Number of cross-validation folds, 1 to 20. Above 1, each variant is trained once per fold and gives
    out-of-fold probabilities for all training rows."""
    sweep: SweepConfig = SweepConfig()
    """Search over fields of the variants."""
    ensemble: EnsembleConfig = EnsembleConfig()
    """Combination of the variants into one decision."""
    fleet: FleetConfig = Field(default=FleetConfig(), json_schema_extra=NOT_FINGERPRINTED)
    """Limits of the training fleet: retries, waiting, checkpoints."""
    tracking: TrackingConfig = Field(default=TrackingConfig(), json_schema_extra=NOT_FINGERPRINTED)
    """Where to log training metrics."""
    budget: BudgetConfig = Field(default=BudgetConfig(), json_schema_extra=NOT_FINGERPRINTED)
    """Limits of cost and node-hours."""

    @model_validator(mode="after")
    def _names_are_distinct_and_known(self) -> Self:
        names = [variant.name for variant in self.variants]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError("variants", "must have distinct names", f"{name!r} twice", "Rename one.")
        if self.sweep.reference is not None and self.sweep.reference not in names:
            raise ConfigError(
                "sweep.reference",
                "must name a variant",
                repr(self.sweep.reference),
                f"Known: {', '.join(names)}.",
            )
        return self

    @model_validator(mode="after")
    def _distilled_networks_have_one_fold(self) -> Self:
        # With several folds the soft labels of a network would know labels of the chips that it holds out:
        # other folds' networks of the ensemble were trained on them.
        distilled = next((one.name for one in self.variants if one.distill.run is not None), None)
        if distilled is not None and self.folds > 1:
            raise ConfigError(
                f"variant {distilled}: distill.run",
                "needs an experiment with folds 1 (soft labels would know held-out labels)",
                f"folds {self.folds}",
                "Set folds to 1: thresholds are then fitted on validation chips.",
            )
        return self

    @model_validator(mode="after")
    def _no_text_holds_credentials(self) -> Self:
        for name, text in texts_of(self, ""):
            refuse_credentials(name, text)
        return self

    @model_validator(mode="after")
    def _crops_fit_the_images(self) -> Self:
        for variant in self.variants:
            if variant.augment.crop is not None and variant.augment.crop > self.data.image_size:
                raise ConfigError(
                    f"variant {variant.name}: augment.crop",
                    "must be at most data.image_size",
                    f"{variant.augment.crop} and {self.data.image_size}",
                    "Change one of them.",
                )
        return self

    @model_validator(mode="after")
    def _the_sweep_can_run(self) -> Self:
        check_sweep(self)
        return self

    @model_validator(mode="after")
    def _variants_fit_the_bands(self) -> Self:
        for variant in self.variants:
            augment, thing = variant.augment, f"variant {variant.name}"
            if not self.data.bands:
                if augment.band_dropout:
                    need = "must be 0 without data.bands"
                    raise ConfigError(
                        f"{thing}: augment.band_dropout", need, augment.band_dropout, "Drop it."
                    )
                continue
            for name in AugmentConfig.COLOR_STEPS:
                if getattr(augment, name):
                    check_colors(self.data.bands, f"{thing}: augment.{name}", getattr(augment, name))
            for name in ("mean", "std", "value_scale", "band_order"):
                stated = getattr(variant.model, name)
                if stated is not None and variant.model.weights is None:
                    need = "must be unset with data.bands, unless it describes model.weights"
                    raise ConfigError(f"{thing}: model.{name}", need, stated, "Drop it.")
        for study in self.sweep_studies:
            if self.data.bands and "model.weights" in study.space:
                need, got = "must not be swept with data.bands", "model.weights"
                raise ConfigError(f"{study.option}: {got}", need, got, "Leave it out.")
            for name in study.space if self.data.bands else ():
                if name.removeprefix("augment.") in AugmentConfig.COLOR_STEPS:
                    check_colors(self.data.bands, f"{study.option}: {name}", "a space")
        return self

    def training_rows(self, num_rows: int) -> int:
        """Number of chips, of ``num_rows`` labelled ones, that a training learns from."""
        data = self.data
        rows = num_rows - round(num_rows * data.val_fraction) - round(num_rows * data.test_fraction)
        return rows * (self.folds - 1) // self.folds if self.folds > 1 else rows

    @property
    def sweep_studies(self) -> tuple[Study, ...]:
        """The searches of the sweep stage, one per swept variant; empty without a sweep."""
        return studies_of(self)

    @property
    def trained_variants(self) -> tuple[VariantConfig, ...]:
        """The variants that are trained, without the values of the sweep: see ``sweep.members``."""
        return tuple(member for variant in self.variants for member in members_of(self, variant))
