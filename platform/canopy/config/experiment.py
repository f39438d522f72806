"""The whole."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from canopy.config.base import PLACE, Section
from canopy.config.data import DataConfig
from canopy.config.search import EnsembleConfig, SweepConfig
from canopy.config.variant import VariantConfig


class Experiment(Section):
    """Everything that one run of the pipeline depends on."""

    preset: str = "custom"
    """The named experiment to start from (demo, planet32); it also names the default run directory. When it
    is not given: the config of an existing ``--run-dir``, else demo."""
    data: DataConfig = DataConfig()
    variants: tuple[VariantConfig, ...] = Field(min_length=1)
    folds: int = Field(default=1, ge=1, le=20)
    """Above 1, each variant is trained once per fold and gives out-of-fold probabilities."""
    sweep: SweepConfig = SweepConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
    capacity_timeout_s: float = Field(default=1800, gt=0, json_schema_extra=PLACE)
    """How long to wait for nodes that the autoscaler is bringing."""
    max_failures: int = Field(default=2, ge=0, json_schema_extra=PLACE)
    """Restarts of one variant's training before it counts as failed."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [variant.name for variant in self.variants]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"variants must have distinct names. Got: {name!r} twice. Rename one.")
        if self.sweep.reference is not None and self.sweep.reference not in names:
            raise ValueError(
                f"sweep.reference must name a variant. Got: {self.sweep.reference!r}. "
                f"Known: {', '.join(names)}."
            )
        return self

    @property
    def sweep_reference(self) -> VariantConfig | None:
        """The variant that the sweep trains; None when no variant wants swept parameters."""
        if self.sweep.trials == 0 or not any(variant.swept_loss for variant in self.variants):
            return None
        if self.sweep.reference is not None:
            return next(v for v in self.variants if v.name == self.sweep.reference)
        return next(v for v in self.variants if v.swept_loss)
