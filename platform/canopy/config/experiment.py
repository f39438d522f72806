"""The whole."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from canopy.config.data import DataConfig
from canopy.config.ensemble import EnsembleConfig, SweepConfig
from canopy.config.section import PLACE, Positive, Section
from canopy.config.variant import VariantConfig


class FleetConfig(Section):
    """How patient the fleet is, and what it may expect of the cluster."""

    max_failures: int = Field(default=2, ge=0)
    """Restarts of one training after a crash, from its last checkpoint; what would come again at each
    restart (a file of weights that does not fit, a loss that is not finite) ends it at once."""
    max_preemption_failures: int = Field(default=20, ge=0)
    """Restarts after nodes that the cloud took back; not counted as crashes."""
    controller_failure_limit: int = Field(default=3, ge=0)
    """Restarts after trouble outside the workers, e.g. nodes that did not come in time."""
    capacity_timeout_s: Positive = 1800
    """How long to wait for nodes that the autoscaler is bringing."""
    promised: dict[str, Positive] = Field(default={})
    """What an autoscaling cluster may grow to, by resource, e.g. GPU 4: as many trainings are asked for at
    once. Where the autoscaler itself publishes its limits (KubeRay), they are known without this."""
    checkpoint_minutes: Positive | None = 10
    """Minutes of training after which a checkpoint is made within an epoch, besides the one at each epoch's
    end; None: only there."""
    checkpoint_steps: int | None = Field(default=None, ge=1)
    """Steps after which a checkpoint is made within an epoch, besides those by minutes."""
    keep_checkpoints: int = Field(default=1, ge=1)
    """1 keeps a training's newest checkpoint, which also holds the weights of its best epoch; more keeps,
    besides the newest, as many as this with the best validation scores."""
    stop_grace_s: float = Field(default=45, ge=0)
    """How long a job that is told to stop (SIGTERM, Ctrl-C) lets its trainings take to checkpoint and end.
    After ``ray job stop`` it is killed after 60 seconds (platform/deploy/runtime_env.yaml): leave some of
    them."""
    table_minutes: Positive = 5
    """Minutes between two tables of all trainings in a log; a terminal has a live one."""


class TrackingConfig(Section):
    """Where a training's figures go beside the run directory's own files and Ray's metrics."""

    tensorboard: bool = True
    """Event files under train/VARIANT/foldN/tensorboard."""
    mlflow_uri: str | None = None
    """Address of an MLflow server (http://…); needs the extra canopy[mlflow]."""
    mlflow_experiment: str = "canopy"
    """The MLflow experiment that gets a run per training."""


class Experiment(Section):
    """Everything that one run of the pipeline depends on."""

    preset: str = "custom"
    """The named experiment to start from (demo, planet32, planet32-long, amazon); it also names the default
    run directory. When it is not given: the config of an existing ``--run-dir``, else demo."""
    data: DataConfig = DataConfig()
    variants: tuple[VariantConfig, ...] = Field(min_length=1)
    folds: int = Field(default=1, ge=1, le=20)
    """Above 1, each variant is trained once per fold and gives out-of-fold probabilities."""
    sweep: SweepConfig = SweepConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
    fleet: FleetConfig = Field(default=FleetConfig(), json_schema_extra=PLACE)
    tracking: TrackingConfig = Field(default=TrackingConfig(), json_schema_extra=PLACE)

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

    @model_validator(mode="after")
    def _crops_fit(self) -> Self:
        for variant in self.variants:
            if variant.augment.crop is not None and variant.augment.crop > self.data.image_size:
                raise ValueError(
                    f"variant {variant.name}: augment.crop must be at most data.image_size. "
                    f"Got: {variant.augment.crop} and {self.data.image_size}. Change one of them."
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
