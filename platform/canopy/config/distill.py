"""DistillConfig: soft labels from the ensemble of another run."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from canopy.config.section import Section
from canopy.errors import ConfigError


class DistillConfig(Section):
    """Knowledge distillation (Hinton et al. 2015) of a finished run's ensemble into one network."""

    run: str | None = None
    """Directory or URI of a finished run with several folds on the same chips, labels and splits, whose
    out-of-fold probabilities are the soft labels of the training chips. None: hard labels alone."""
    weight: float = Field(default=0.5, gt=0, le=1)
    """For ``run``: share of the soft labels in the loss, above 0 to 1; the rest is the hard labels' loss."""
    temperature: float = Field(default=1.0, ge=1, le=20)
    """For ``run``: divisor of both networks' logits in the soft part, 1 to 20; above 1 labels that the
    ensemble thinks unlikely weigh more."""

    @model_validator(mode="after")
    def _settings_need_a_run(self) -> Self:
        for name in ("weight", "temperature"):
            if self.run is None and getattr(self, name) != type(self).model_fields[name].default:
                remedy = "Set distill.run, or leave it out."
                raise ConfigError(f"distill.{name}", "needs distill.run", getattr(self, name), remedy)
        return self
