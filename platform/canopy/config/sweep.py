"""The sweep: hyperparameter search over the focal loss on Ray Tune."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from canopy.config.section import NOT_FINGERPRINTED, Section
from canopy.errors import ConfigError


class SweepConfig(Section):
    """Search for the focal loss's gamma and alpha on one variant, with early stopping (ASHA)."""

    trials: int = Field(default=6, ge=0)
    """Number of trials, 0 or more; 0 skips the sweep."""
    reference: str | None = None
    """Name of the variant to train in each trial; None: the first variant with ``swept_loss``."""
    epochs: int = Field(default=4, ge=1)
    """Maximum number of epochs of a trial, 1 or more."""
    grace_epochs: int = Field(default=1, ge=1)
    """Number of epochs that every trial runs before it may be stopped early, 1 or more."""
    reduction_factor: int = Field(default=2, ge=2)
    """At each rung of ASHA, one trial in this many continues; 2 or more."""
    rows: int | None = Field(default=None, ge=64)
    """Number of training rows per trial, 64 or more; None: all."""
    gamma: tuple[float, float] = (0.0, 4.0)
    """Range of the focal gamma, low end first, within 0 to 10."""
    alpha: tuple[float, float] = (0.25, 0.75)
    """Range of the focal alpha, low end first, within 0 to 1."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sampled points and of the drawn rows, 0 or more."""
    concurrent: int = Field(default=2, ge=1, json_schema_extra=NOT_FINGERPRINTED)
    """Maximum number of trials that run at the same time, 1 or more."""

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> Self:
        for name, (low, high), top in (("gamma", self.gamma, 10.0), ("alpha", self.alpha, 1.0)):
            if not 0 <= low <= high <= top:
                raise ConfigError(
                    f"sweep.{name}",
                    f"must be a range within [0, {top:g}], low end first",
                    f"{low} {high}",
                    "Give two numbers in order.",
                )
        return self
