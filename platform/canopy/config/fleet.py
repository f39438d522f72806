"""Limits of the fleet: restarts, waiting times, checkpoints, and what the autoscaler may add."""

from __future__ import annotations

from pydantic import Field

from canopy.config.section import Positive, Section


class FleetConfig(Section):
    """Limits of the training fleet: retries, waiting, checkpoints."""

    max_failures: int = Field(default=2, ge=0)
    """Restarts of one training after a crash, from its last checkpoint, 0 or more; an error that every
    restart would meet again (weights that do not fit, a loss that is not finite) ends it at once."""
    oom_retries: int = Field(default=3, ge=0)
    """Restarts of one training, each after a wait, when Ray's memory monitor killed it, 0 or more; further
    kills count as crashes."""
    oom_wait_s: Positive = 10
    """Seconds to wait for free memory before the first of these restarts, above 0; each further wait is twice
    as long."""
    max_preemption_failures: int = Field(default=20, ge=0)
    """Restarts of one training after preempted nodes, 0 or more; they do not count as crashes."""
    controller_failure_limit: int = Field(default=3, ge=0)
    """Restarts of one training after failures outside its workers, such as late nodes, 0 or more."""
    capacity_timeout_s: Positive = 1800
    """Seconds to wait for nodes that the autoscaler is starting, above 0."""
    promised: dict[str, Positive] = Field(default={})
    """Maximum size of an autoscaling cluster, by resource, such as ``GPU 4``: trainings that need that much
    are started at once. Not needed where the autoscaler publishes its limits (KubeRay)."""
    checkpoint_minutes: Positive | None = 10
    """Minutes between checkpoints within an epoch, above 0; None: checkpoint at the end of epochs only."""
    checkpoint_steps: int | None = Field(default=None, ge=1)
    """Steps between checkpoints within an epoch, 1 or more; None: no checkpoints by steps."""
    keep_checkpoints: int = Field(default=1, ge=1)
    """Number of checkpoints to keep per training, 1 or more. 1: the newest, which also holds the weights of
    the best epoch; more: the newest and, up to this number, those with the best validation scores."""
    stop_grace_s: float = Field(default=45, ge=0)
    """Seconds that trainings get to checkpoint and end after SIGTERM or Ctrl-C, 0 or more. Keep it below the
    60 seconds after which ``ray job stop`` kills a job (platform/deploy/runtime_env.yaml)."""
    table_minutes: Positive = 5
    """Minutes between two progress tables in a log, above 0; a terminal shows a live table."""
