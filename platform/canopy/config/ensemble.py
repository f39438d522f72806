"""What is tuned: focal parameters, and the ensemble."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from canopy.config.section import PLACE, Fraction, Section

CalibrationKind = Literal["none", "temperature", "platt", "beta", "isotonic"]
"""From the stiffest to the most flexible."""
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
"""From the simplest to the most flexible."""


class SweepConfig(Section):
    """Ray Tune over the focal parameters of one reference variant, with early stopping (ASHA)."""

    trials: int = Field(default=6, ge=0)
    """How many settings to try; 0 skips the sweep."""
    reference: str | None = None
    """Name of the variant to sweep; None takes the first that wants swept parameters."""
    epochs: int = Field(default=4, ge=1)
    """Longest trial."""
    grace_epochs: int = Field(default=1, ge=1)
    """No trial is stopped before."""
    reduction_factor: int = Field(default=2, ge=2)
    """At each rung of ASHA one trial in this many goes on."""
    rows: int | None = Field(default=None, ge=64)
    """Train each trial on this many rows; None takes all."""
    gamma: tuple[float, float] = (0.0, 4.0)
    """Range of the focal gamma."""
    alpha: tuple[float, float] = (0.25, 0.75)
    """Range of the focal alpha."""
    seed: int = Field(default=0, ge=0)
    concurrent: int = Field(default=2, ge=1, json_schema_extra=PLACE)
    """Trials at the same time."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name, (low, high), top in (("gamma", self.gamma, 10.0), ("alpha", self.alpha, 1.0)):
            if not 0 <= low <= high <= top:
                raise ValueError(
                    f"sweep.{name} must be a range within [0, {top:g}], low end first. Got: {low} {high}. "
                    "Give two numbers in order."
                )
        return self


class EnsembleConfig(Section):
    """How the members' probabilities become one decision; ``auto`` is chosen by nested cross-fitting."""

    objective: Literal["mixed", "macro_f1", "micro_f1", "f2", "cost"] = "mixed"
    """What thresholds and the choice aim at: macro-F1 and micro-F1 together, one of them, Kaggle's per-image
    F2, or least cost."""
    micro_weight: Fraction = 0.6
    """Mixed: the share of micro-F1, the rest is macro-F1; 0 with a floor is macro-F1 above the floor."""
    micro_floor: Fraction | None = None
    """Mixed: lowest micro-F1 allowed; where it is out of reach, micro-F1 is maximised."""
    costs: dict[str, tuple[float, float]] = Field(default={})
    """Cost: by label, the cost of a false alarm and that of a miss; labels not named cost 1 and 1."""
    calibration: Literal["auto", CalibrationKind] = "auto"
    """Of each member, per class."""
    combination: Literal["auto", CombinationKind] = "auto"
    """How calibrated members become one."""
    thresholds: Literal["half", "global", "exact", "shrunk", "plug_in"] = "shrunk"
    """0.5; one for all labels; exact per label; exact shrunk to the plug-in rule; the plug-in rule."""
    exclusive: tuple[str, ...] = ()
    """Groups of labels of which each image has exactly one, e.g. ``clear,partly_cloudy,haze,cloudy``."""
    folds: int = Field(default=5, ge=4, le=20)
    """Of the cross-fitting. Nesting leaves out two, and calibration one more: something must be left."""
    bags: int = Field(default=5, ge=1, le=100)
    """Of the greedy selection."""
    search_rows: int = Field(default=16384, ge=256)
    """Candidates are compared on no more rows than this; the winner is refitted on eight times as many, its
    thresholds on all rows, exactly."""
    bootstrap: int = Field(default=1000, ge=100)
    """Resamples behind each interval."""
    seed: int = Field(default=0, ge=0)
    shard_above_mb: int = Field(default=2048, ge=0, json_schema_extra=PLACE)
    """Files that somebody brings, larger than this together and cut alike for every member, are read shard by
    shard as Ray tasks, with the same result."""

    @model_validator(mode="after")
    def _rules_across_fields(self) -> Self:
        if self.micro_floor is not None and self.objective != "mixed":
            raise ValueError(
                "ensemble.micro_floor needs ensemble.objective mixed. "
                f"Got: {self.objective!r}. Set the objective to mixed or drop the floor."
            )
        for label, costs in self.costs.items():
            if min(costs) < 0 or max(costs) <= 0:
                raise ValueError(
                    f"ensemble.costs of {label} must be two numbers of at least 0, not both 0. Got: {costs}. "
                    "Give the cost of a false alarm and of a miss."
                )
        return self
