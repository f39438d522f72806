"""The ensemble: how the members' probabilities become one decision."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from canopy.config.section import NOT_FINGERPRINTED, Fraction, Section
from canopy.errors import ConfigError

CalibrationKind = Literal["none", "temperature", "platt", "beta", "isotonic"]
"""Calibration methods, from the stiffest to the most flexible."""
CombinationKind = Literal[
    "best_single",
    "mean",
    "rank_mean",
    "geometric_mean",
    "greedy",
    "simplex",
    "per_class",
    "logistic",
    "logistic_two_level",
    "ridge_two_level",
]
"""Combination methods, from the simplest to the most flexible."""


class EnsembleConfig(Section):
    """Combination of the members into one decision; ``auto`` chooses by nested cross-fitting."""

    objective: Literal["mixed", "macro_f1", "micro_f1", "f2", "cost"] = "mixed"
    """Objective of thresholds and model selection: a mix of macro-F1 and micro-F1, one of the two, Kaggle's
    per-image F2, or the lowest cost."""
    micro_weight: Fraction = 0.6
    """Weight of micro-F1 in the ``mixed`` objective, 0 to 1; macro-F1 gets the rest."""
    micro_floor: Fraction | None = None
    """Lowest micro-F1 that the ``mixed`` objective accepts, 0 to 1; where no decision reaches it, micro-F1
    is maximized. None: no limit."""
    costs: dict[str, tuple[float, float]] = Field(default={})
    """For the ``cost`` objective, by label: cost of a false positive and of a false negative, each 0 or more;
    labels not given cost 1 and 1."""
    calibration: Literal["auto", CalibrationKind] = "auto"
    """Calibration of each member's probabilities, per class."""
    combination: Literal["auto", CombinationKind] = "auto"
    """Method that combines the calibrated members."""
    thresholds: Literal["half", "global", "exact", "shrunk", "plug_in"] = "shrunk"
    """Decision thresholds: 0.5 for all labels; one for all labels, fitted; the exact optimum per label; the
    exact optimum shrunk toward the plug-in rule; the plug-in rule (half the best F1)."""
    exclusive: tuple[str, ...] = ()
    """Groups of labels of which each image has exactly one, such as ``clear,partly_cloudy,haze,cloudy``."""
    folds: int = Field(default=5, ge=4, le=20)
    """Number of folds of the nested cross-fitting, 4 to 20."""
    bags: int = Field(default=5, ge=1, le=100)
    """Number of random subsets of the rows over which the greedy selection is averaged, 1 to 100."""
    search_rows: int = Field(default=16384, ge=256)
    """Maximum number of rows on which methods are compared, 256 or more; the chosen method is fitted on eight
    times as many, its thresholds on all rows."""
    bootstrap: int = Field(default=1000, ge=100)
    """Number of bootstrap resamples per confidence interval, 100 or more."""
    seed: int = Field(default=0, ge=0)
    """Seed of folds, sampled rows and resamples, 0 or more."""
    shard_above_mb: int = Field(default=2048, ge=0, json_schema_extra=NOT_FINGERPRINTED)
    """Total size, in MB, above which prediction files from elsewhere are read shard by shard as Ray tasks, 0
    or more; needs the same shards for every member, and gives the same result."""

    @model_validator(mode="after")
    def _rules_across_fields(self) -> Self:
        if self.micro_floor is not None and self.objective != "mixed":
            raise ConfigError(
                "ensemble.micro_floor",
                "needs ensemble.objective mixed",
                repr(self.objective),
                "Set the objective to mixed or drop the floor.",
            )
        for label, costs in self.costs.items():
            if min(costs) < 0 or max(costs) <= 0:
                raise ConfigError(
                    f"ensemble.costs of {label}",
                    "must be two numbers of at least 0, not both 0",
                    costs,
                    "Give the cost of a false positive and of a false negative.",
                )
        return self
