"""The stages of an experiment in order: prepare, sweep, train, ensemble, report.

Each stage reads and writes files in one run directory, and skips its work if it is done for the same inputs.
So the same command, submitted again, continues where the last one ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol

from canopy.config import Experiment
from canopy.runtime.cluster import check_environment
from canopy.runtime.console import Console
from canopy.runtime.logging import log_context
from canopy.runtime.metrics import set_gauge
from canopy.runtime.stage import ON_RAY, Stage
from canopy.stages.context import StageContext
from canopy.storage import files
from canopy.storage.run_dir import RunDir


class StageModule(Protocol):
    """The functions that every module of a stage has."""

    def key(self, context: StageContext) -> str:
        """Fingerprint of the stage's settings and inputs."""

    def is_done(self, context: StageContext) -> bool:
        """Whether the outputs for this fingerprint exist."""

    def run(self, context: StageContext) -> None:
        """Run the stage, unless it is done."""


def stage_module(stage: Stage) -> StageModule:
    """The module of a stage, imported when it is needed: some import Ray and torch."""
    module: StageModule = import_module(f"canopy.stages.{stage}")
    return module


def run_stages(
    config: Experiment, run_dir: RunDir, stages: Sequence[Stage] = tuple(Stage), dry_run: bool = False
) -> StageContext:
    """Run ``stages`` in order; stages before the first of them must have finished.

    Args:
        config: the experiment.
        run_dir: its run directory.
        stages: in the order of :class:`~canopy.runtime.stage.Stage`.
        dry_run: print the plan of the trainings and do nothing else.

    Raises:
        InputError: when the input cannot be used, or another pipeline works in the run directory.
        ConfigError: when a node of the cluster does not share the run directory or the data.
        StageError: when a stage failed, or the run reached the limit of its cost.
        Stopped: when a signal ended the trainings.
    """
    on_ray = any(stage in stages for stage in ON_RAY)
    if on_ray and not dry_run:
        check_environment()  # before the imports that take seconds
    from canopy.stages import preflight

    context = StageContext(config, run_dir, Console())
    with log_context(run=files.shown(run_dir.root)):
        if dry_run:
            print(preflight.plan(context, stages))
            return context
        with preflight.opened(context, stages, on_ray) as check:
            for stage in stages:
                check(stage)
                set_gauge("canopy_stage_running", 1, stage=stage)
                stage_module(stage).run(context)
                set_gauge("canopy_stage_running", 0, stage=stage)
    return context
