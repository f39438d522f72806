"""The sweep: hyperparameter search on Ray Tune."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from canopy.config.search_space import SearchSpace
from canopy.config.section import FINGERPRINTED_IF_SET, NOT_FINGERPRINTED, Positive, Section
from canopy.errors import ConfigError

SamplerName = Literal["halton", "tpe", "random", "grid"]
SchedulerName = Literal["asha", "median", "none"]
ObjectiveName = Literal["map", "macro_f1", "ensemble"]


class SweepConfig(Section):
    """Hyperparameter search over fields of one or several variants, with early stopping."""

    trials: int = Field(default=6, ge=0)
    """Number of trials per swept variant, 0 or more; 0 skips the sweep."""
    reference: str | None = None
    """Name of the variant to train in each trial; None: the first variant with ``swept`` that ``variants``
    does not name."""
    space: SearchSpace | None = Field(default=None, json_schema_extra=FINGERPRINTED_IF_SET)
    """What to search: a name (focal, focal-grid, recipe, losses), or a mapping of fields to ranges {low,
    high, log, step} and lists of choices; None: ``focal`` by the sampler ``halton``, without finalists."""
    variants: dict[str, SearchSpace] = Field(default={}, json_schema_extra=FINGERPRINTED_IF_SET)
    """Further swept variants by name, each with its own space."""
    sampler: SamplerName | None = Field(default=None, json_schema_extra=FINGERPRINTED_IF_SET)
    """How points are drawn. ``tpe``: Optuna's multivariate tree-structured Parzen estimator; ``random``;
    ``grid``: every combination once; ``halton``: a fixed sequence over gamma and alpha. None: ``halton``
    without ``space``, ``grid`` for the space ``focal-grid``, else ``tpe``."""
    warm_start: tuple[str, ...] = Field(default=(), json_schema_extra=FINGERPRINTED_IF_SET)
    """Run directories (paths or URIs) of earlier sweeps, also of other data sets, whose trials guide the
    sampler ``tpe`` from the start."""
    scheduler: SchedulerName = Field(default="asha", json_schema_extra=FINGERPRINTED_IF_SET)
    """Early stopping: ``asha`` (Li et al. 2020), ``median`` (worse than the median of the other trials'
    means), or ``none``."""
    objective: ObjectiveName | None = Field(default=None, json_schema_extra=FINGERPRINTED_IF_SET)
    """What is maximized on the validation rows: ``map``, ``macro_f1`` at cross-fitted thresholds, or
    ``ensemble``: the objective of the ensemble section at cross-fitted thresholds. None: ``map``; the sampler
    ``halton`` takes the variant's ``optim.select_by``."""
    minutes: Positive | None = Field(default=None, json_schema_extra=FINGERPRINTED_IF_SET)
    """Minutes after which a swept variant begins no further trial, above 0, restarts included; None: no
    limit."""
    finalists: int | None = Field(default=None, ge=0, json_schema_extra=FINGERPRINTED_IF_SET)
    """Number of best trials that are trained again at full length beside the untouched variant, 0 or more; 0
    takes the best trial without this proof. None: 0 for the sampler ``halton``, else 2."""
    final_seeds: int = Field(default=3, ge=2, le=50, json_schema_extra=FINGERPRINTED_IF_SET)
    """Number of seeds of each finalist and of the untouched variant, 2 to 50; none of them is the seed of the
    trials."""
    members: int | None = Field(default=None, ge=2, json_schema_extra=FINGERPRINTED_IF_SET)
    """Number of trials of each swept variant that go on as members of the fleet in its place, 2 to
    ``trials``: those that make the best ensemble together. None: the variant itself takes the best values."""
    epochs: int = Field(default=4, ge=1)
    """Maximum number of epochs of a trial, 1 or more."""
    equal_cost: bool = Field(default=False, json_schema_extra=FINGERPRINTED_IF_SET)
    """Whether a trial with another backbone, input size or crop trains as many epochs as cost the same, by
    multiply-adds, as ``epochs`` epochs of the variant. What wins is trained at full length by this rule."""
    grace_epochs: int = Field(default=1, ge=1)
    """Number of epochs that every trial runs before it may be stopped early, 1 or more."""
    reduction_factor: int = Field(default=2, ge=2)
    """At each rung of ASHA, one trial in this many continues; 2 or more."""
    rows: int | None = Field(default=None, ge=64)
    """Number of training rows per trial, 64 or more; None: all."""
    gamma: tuple[float, float] = (0.0, 4.0)
    """Range of the focal gamma in the space ``focal``, low end first, within 0 to 10."""
    alpha: tuple[float, float] = (0.25, 0.75)
    """Range of the focal alpha in the space ``focal``, low end first, within 0 to 1."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sampled points and of the drawn rows, 0 or more."""
    workers: Literal["one", "variant"] = Field(default="one", json_schema_extra=FINGERPRINTED_IF_SET)
    """Workers of a trial: ``one``, in the trial's own process, or those of the ``variant`` (of an elastic one
    the largest number), as a Ray Train run of its own, which starts in tens of seconds."""
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

    @model_validator(mode="after")
    def _the_fixed_sequence_is_focal(self) -> Self:
        spaces = [space for space in (self.space, *self.variants.values()) if space is not None]
        if self.sampler == "halton" and any(space.root != "focal" for space in spaces):
            raise ConfigError(
                "sweep.sampler",
                "must be tpe, random or grid for a space other than focal",
                "halton",
                "Leave sweep.sampler out, which takes tpe.",
            )
        return self

    @model_validator(mode="after")
    def _members_are_trials(self) -> Self:
        if self.members is None:
            return self
        if self.members > self.trials:
            remedy = "Lower sweep.members or raise sweep.trials."
            got = f"{self.members} and {self.trials}"
            raise ConfigError("sweep.members", "must be at most sweep.trials", got, remedy)
        if self.finalists:
            need = "must be 0 or left out with sweep.members, whose members all go on"
            raise ConfigError("sweep.finalists", need, self.finalists, "Leave one of the two out.")
        return self

    @property
    def effective_sampler(self) -> SamplerName | None:
        """The sampler; None where each space decides (:func:`canopy.config.study.studies_of`)."""
        if self.sampler is None and self.space is None and not self.variants:
            return "halton"
        return self.sampler

    @property
    def effective_finalists(self) -> int:
        """The number of finalists."""
        if self.finalists is None:
            return 0 if self.effective_sampler == "halton" or self.members else 2
        return self.finalists

    @property
    def is_plain_focal(self) -> bool:
        """Whether the sweep is that of former versions, whose files have a form of their own."""
        plain = self.space is None and not self.variants and self.objective is None and not self.members
        return plain and self.effective_sampler == "halton" and not self.effective_finalists
