"""The stages of an experiment in order: prepare, sweep, train, ensemble, report.

Each stage reads and writes files in one run directory, and skips its work if it is done for the same inputs.
So the same command, submitted again, continues where the last one ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from canopy.config import Experiment, fingerprint
from canopy.errors import InputError
from canopy.runtime.cluster import check_environment, connect, dashboard_url
from canopy.runtime.console import Console
from canopy.runtime.logging import log_context
from canopy.runtime.metrics import forget_gauges, set_gauge
from canopy.runtime.stage import Stage
from canopy.stages.context import StageContext
from canopy.storage import files
from canopy.storage.lease import hold_lease
from canopy.storage.run_dir import RunDir
from canopy.storage.shared import Place, SharedStorage
from canopy.train.fleet.shutdown import end_on_sigterm

if TYPE_CHECKING:
    from canopy.stages.checks import WeightsCheck

ON_RAY = (Stage.PREPARE, Stage.SWEEP, Stage.TRAIN)
"""Stages that run Ray tasks or actors."""


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
    on_ray = not dry_run and any(stage in stages for stage in ON_RAY)
    if on_ray:
        check_environment()  # before the imports that take seconds
    from canopy.stages.checks import check_variants

    context = StageContext(config, run_dir, Console())
    with log_context(run=files.shown(run_dir.root)):
        reports = check_variants(config, weights_check(context, on_ray, dry_run))
        if dry_run:
            from canopy.stages.dry_run import plan_of

            print(plan_of(config, stages), *reports, sep="\n")
            return context
        for report in reports:
            context.console.say("weights", report)
        with hold_lease(run_dir.root) as lease, closing_gauges(run_dir.root):
            if on_ray:
                refuse_dear_run(context, stages)
            start_up(context, stages)
            if any(stage in stages for stage in (Stage.SWEEP, Stage.TRAIN)):
                require_room(context)
            storage = SharedStorage(shared_places(context))
            with budget_guard(context, on_ray):
                for stage in stages:
                    lease.check()
                    if stage in ON_RAY:
                        storage.check()  # again for each stage: an autoscaler has brought nodes meanwhile
                    set_gauge("canopy_stage_running", 1, stage=stage)
                    stage_module(stage).run(context)
                    set_gauge("canopy_stage_running", 0, stage=stage)
    return context


@contextmanager
def closing_gauges(run: str) -> Iterator[None]:
    """Let the run's gauges end with the block."""
    try:
        yield
    finally:
        forget_gauges(run)
        forget_gauges(files.shown(run))


def refuse_dear_run(context: StageContext, stages: Sequence[Stage]) -> None:
    """Refuse the first start of a run whose estimated cost is above its limit.

    A run that was started before is not estimated again, because much of it may be done; its limit holds.

    Raises:
        ConfigError: see :func:`canopy.cost.estimate.refuse_over_budget`.
    """
    budget = context.config.budget
    has_limit = budget.max_cost is not None or budget.max_node_hours is not None
    if not has_limit or budget.cluster is None or files.exists(context.run_dir.path("cost.json")):
        return
    from canopy.cost.estimate import estimate, refuse_over_budget
    from canopy.stages.dry_run import expected_rows

    rows, _ = expected_rows(context.config)
    if rows is not None:
        refuse_over_budget(context.config, estimate(context.config, rows, stages))


def budget_guard(context: StageContext, on_ray: bool) -> AbstractContextManager[object]:
    """What charges the cluster's nodes to the run; nothing where no stage uses Ray."""
    if not on_ray:
        return nullcontext()
    from canopy.cost.guard import BudgetGuard

    return BudgetGuard(context.run_dir, context.config.budget, context.console)


def weights_check(context: StageContext, on_ray: bool, dry_run: bool) -> WeightsCheck:
    """How much to check of the weights that the variants start from: nothing where no training is left.

    Args:
        context: the experiment and its run directory.
        on_ray: whether a stage may train.
        dry_run: whether nothing may be downloaded.
    """
    if dry_run:
        return "cached"
    if not on_ray or not any(variant.model.is_transfer for variant in context.config.variants):
        return "none"
    try:
        return "none" if stage_module(Stage.TRAIN).is_done(context) else "fetch"
    except InputError:  # not prepared yet, or damaged: the stages will say so
        return "fetch"


def start_up(context: StageContext, stages: Sequence[Stage]) -> None:
    """Join or start Ray where a stage needs it; record the config.

    Raises:
        RunDirError: when the first stage is not prepare and prepare has not finished for this config.
    """
    from canopy.stages.prepare import load_catalogue

    config, run_dir, console = context.config, context.run_dir, context.console
    console.say("run", f"{config.preset}, config {fingerprint(config)[:8]}, in {files.shown(run_dir.root)}")
    if Stage.PREPARE not in stages:
        load_catalogue(context)
        run_dir.store_config(config)  # not before: the run may belong to another data set
    if any(stage in stages for stage in ON_RAY):
        connect()
        end_on_sigterm()
        console.say("run", f"Ray is up; dashboard {dashboard_url() or 'not started'}")


def require_room(context: StageContext) -> None:
    """Refuse variants that the cluster can never hold, unless all of them are trained.

    Raises:
        ConfigError: names the variant, what it needs and what there is.
    """
    from canopy.train.fleet.resources import check_demand

    try:
        done = stage_module(Stage.TRAIN).is_done(context)
    except InputError:  # not prepared yet, or damaged: the stages will say so
        done = False
    if not done:
        check_demand(context.config, [variant.name for variant in context.config.variants])


def shared_places(context: StageContext) -> list[Place]:
    """The directories that all nodes of a cluster must share."""
    data, places = (
        context.config.data,
        [Place("--run-dir", files.absolute(context.run_dir.root), written=True)],
    )
    if data.root is not None:
        places.append(Place("--data.root", files.absolute(data.root), written=data.source == "generated"))
    return places
