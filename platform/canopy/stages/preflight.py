"""What happens before the first stage: checks, the lease of the run directory, Ray, the guard of the cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from canopy.config import fingerprint
from canopy.cost.meter import COST_FILE
from canopy.errors import InputError, RunDirError
from canopy.runtime.cluster import connect, dashboard_url
from canopy.runtime.metrics import forget_gauges
from canopy.runtime.stage import ON_RAY, Stage
from canopy.stages.checks import WeightsCheck, check_variants
from canopy.stages.context import StageContext
from canopy.storage import files
from canopy.storage.lease import hold_lease
from canopy.storage.shared import Place, SharedStorage
from canopy.train.fleet.shutdown import end_on_sigterm


def plan(context: StageContext, stages: Sequence[Stage]) -> str:
    """The text of a dry run; reads no data and downloads nothing.

    Raises:
        ConfigError: when a variant cannot be trained.
    """
    from canopy.stages.dry_run import plan_of

    reports = check_variants(context.config, "cached")
    return "\n".join([plan_of(context.config, stages), *reports])


@contextmanager
def opened(context: StageContext, stages: Sequence[Stage], on_ray: bool) -> Iterator[Callable[[Stage], None]]:
    """Check everything that can be known before the first stage, and hold what the stages need.

    Args:
        context: the experiment and its run directory.
        stages: stages that are going to run.
        on_ray: whether one of them needs Ray.

    Yields:
        The check before each stage: the lease still holds, and all nodes share the directories.

    Raises:
        InputError: when the input cannot be used, or another pipeline works in the run directory.
        ConfigError: when the cluster cannot hold a variant, or the estimated cost is above the limit.
        StageError: when the run reached the limit of its cost.
    """
    for report in check_variants(context.config, weights_check(context, on_ray)):
        context.console.say("weights", report)
    with hold_lease(context.run_dir.root) as lease, closing_gauges(files.shown(context.run_dir.root)):
        refuse_other_pixels(context)
        if on_ray:
            refuse_dear_run(context, stages)
        if Stage.SWEEP in stages:
            check_warm_start(context)
        guard = budget_guard(context, on_ray)  # refuses a bad price table and a limit that is used up
        start_up(context, stages, on_ray)
        if Stage.SWEEP in stages or Stage.TRAIN in stages:
            require_room(context)
        storage = SharedStorage(shared_places(context))

        def check(stage: Stage) -> None:
            lease.check()
            if stage in ON_RAY:
                storage.check()  # for each stage: an autoscaler has brought nodes meanwhile

        with guard:
            yield check


def weights_check(context: StageContext, on_ray: bool) -> WeightsCheck:
    """How much to check of the weights and runs that variants use: nothing where no training is left."""
    variants = context.config.variants
    if not on_ray or not any(one.model.is_transfer or one.distill.run is not None for one in variants):
        return "none"
    return "none" if is_trained(context) else "fetch"


def is_trained(context: StageContext) -> bool:
    """Whether every training has finished."""
    from canopy.stages import train  # imports Ray

    try:
        return train.is_done(context)
    except InputError:  # not prepared yet, or damaged: the stages will say so
        return False


def start_up(context: StageContext, stages: Sequence[Stage], on_ray: bool) -> None:
    """Join or start Ray where a stage needs it; record the config.

    Raises:
        RunDirError: when the first stage is not prepare and prepare has not finished for this config.
    """
    from canopy.stages.prepare import load_catalogue  # imports Ray

    config, run_dir, console = context.config, context.run_dir, context.console
    console.say("run", f"{config.preset}, config {fingerprint(config)[:8]}, in {files.shown(run_dir.root)}")
    if Stage.PREPARE not in stages:
        load_catalogue(context)
        run_dir.store_config(config)  # not before: the run may belong to another data set
    if on_ray:
        connect()
        end_on_sigterm()
        console.say("run", f"Ray is up; dashboard {dashboard_url() or 'not started'}")


def refuse_other_pixels(context: StageContext) -> None:
    """Refuse other RGB chips in a run directory that holds trials or trainings.

    Their keys name the images and their rows, not how a chip is made of an image, so that they would count as
    done, and go on from their checkpoints, for chips that they have never seen. Keys of other bands do.

    Raises:
        RunDirError: names the setting.
    """
    run_dir, data = context.run_dir, context.config.data
    try:
        before = run_dir.load_config().data
    except InputError:  # a new directory, or one that cannot be read, which other checks name
        return
    if data.bands or before.bands:
        return
    for name in ("image_size", "sensor"):
        if getattr(before, name) == getattr(data, name):
            continue
        if any(files.is_dir(run_dir.path(stage)) for stage in (Stage.SWEEP, Stage.TRAIN)):
            thing = f"Run directory {files.shown(run_dir.root)}"
            need = f"must be used with the data.{name} that its networks were trained with"
            remedy = "Give another --run-dir, or delete sweep/ and train/ in this one."
            raise RunDirError(thing, need, "another one", remedy)


def require_room(context: StageContext) -> None:
    """Refuse variants that the cluster can never hold, unless all of them are trained.

    Raises:
        ConfigError: names the variant, what it needs and what there is.
    """
    from canopy.sweep.nested import check_nested_trials  # imports Ray
    from canopy.train.fleet.resources import check_demand

    if not is_trained(context):
        check_demand(context.config)
        check_nested_trials(context.config)


def check_warm_start(context: StageContext) -> None:
    """Refuse earlier runs that cannot guide the sweep, unless it has finished.

    Raises:
        RunDirError: names the run.
    """
    if not context.config.sweep.warm_start:
        return
    from canopy.stages import sweep  # imports Ray
    from canopy.sweep.warm_start import read_searches

    try:
        if sweep.is_done(context):
            return
    except InputError:  # not prepared yet
        pass
    for run in context.config.sweep.warm_start:
        read_searches(run)


def shared_places(context: StageContext) -> list[Place]:
    """The directories that all nodes of a cluster must share."""
    data = context.config.data
    places = [Place("--run-dir", files.absolute(context.run_dir.root), written=True)]
    if data.root is not None:
        places.append(Place("--data.root", files.absolute(data.root), written=data.source == "generated"))
    return places


@contextmanager
def closing_gauges(run: str) -> Iterator[None]:
    """Let the run's gauges end with the block."""
    try:
        yield
    finally:
        forget_gauges(run)


def refuse_dear_run(context: StageContext, stages: Sequence[Stage]) -> None:
    """Refuse the first start of a run whose estimated cost is above its limit.

    A run that was started before is not estimated again, because much of it may be done; its limit holds.

    Raises:
        ConfigError: see :func:`canopy.cost.estimate.refuse_over_budget`.
    """
    budget = context.config.budget
    has_limit = budget.max_cost is not None or budget.max_node_hours is not None
    if not has_limit or budget.cluster is None or files.exists(context.run_dir.path(COST_FILE)):
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
