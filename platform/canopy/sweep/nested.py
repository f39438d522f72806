"""Trials of several workers: each is a Ray Train run inside a trial of Ray Tune.

The trial's own process takes hardly any resources; it waits for the workers, which have a placement group of
their own. Ray Train frees that group when Ray Tune ends the trial only where Ray's dashboard runs: without
it a stopped trial would keep its resources for ever, so such a sweep is refused before it starts.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from canopy.config import Experiment, ResourcesConfig, Study, SweepConfig, describe_values
from canopy.data.catalogue import Catalogue
from canopy.errors import ConfigError
from canopy.runtime.cluster import dashboard_url
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.sweep.records import TrialRecords
from canopy.sweep.schedulers import TIME
from canopy.sweep.trials import TrialContext, TrialPlace, train_trial, trial_process, trial_scale
from canopy.train.fleet.resources import bundles, cluster_capacity, is_capacity_known, worker_resources
from canopy.train.fleet.scheduler import Resources, never_fits
from canopy.train.fleet.trainer import configure_ray_train
from canopy.train.fleet.worker import model_wrapper
from canopy.train.training_phase import DistributedContext

WAITING: Resources = {"CPU": 0.001}
"""Resources of the process that waits for the workers; Ray Tune refuses a trial without any."""


def run_nested_trial(search: dict[str, Any], context: TrialContext) -> None:
    """Train one point of the search space on several workers and report each epoch to Ray Tune.

    Args:
        search: Ray Tune's parameters of the trial, from :func:`canopy.sweep.trials.search_parameters`.
        context: inputs that all trials share.
    """
    configure_ray_train(context.fleet)
    number, scale = search["number"], context.variant.scale
    filesystem, storage = files.resolve(storage_folder(context.records))
    callbacks: list[Any] = [TuneReportCallback()]  # type: ignore[no-untyped-call]
    trainer = TorchTrainer(
        partial(train_on_worker, search, context),
        scaling_config=ScalingConfig(
            num_workers=scale.workers,
            use_gpu=scale.gpus_per_worker > 0,
            resources_per_worker=worker_resources(scale),
        ),
        run_config=RunConfig(
            # A name of its own for each start: Ray Train goes on from what it finds, and we from our files.
            name=f"{Stage.SWEEP}-{context.records.key[:12]}-{number}-{time.time_ns()}",
            storage_path=storage,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=0),  # Ray Tune starts a failed trial again
            callbacks=callbacks,
        ),
    )
    trainer.fit()


def storage_folder(records: TrialRecords) -> str:
    """Folder of Ray Train's own files of the trials of a round."""
    return records.file("ray")


def remove_storage(records: TrialRecords) -> None:
    """Remove Ray Train's own files of a round; our checkpoints and records stay."""
    filesystem, inner = files.resolve(storage_folder(records))
    with contextlib.suppress(OSError):  # there is none, or a process of a stopped trial still writes
        filesystem.delete_dir(inner)


def train_on_worker(search: dict[str, Any], context: TrialContext) -> None:
    """Train one point of the search space; Ray Train calls it on every rank."""
    import ray.train
    from ray.train.torch import get_device

    values = json.loads(search["values"])
    variant, worker = context.variant_of(values), ray.train.get_context()
    dist_context = DistributedContext(worker.get_world_rank(), worker.get_world_size(), get_device())

    def report(result: dict[str, Any]) -> None:
        position = context.reference_epochs(values, result["epoch"])
        ray.train.report({**result, TIME: position, "workers": dist_context.world_size})

    with trial_process(variant, context):
        catalogue = Catalogue.read(context.records.run_dir.path(Stage.PREPARE, "catalogue.parquet"))
        wrap = model_wrapper(variant, dist_context)
        place = TrialPlace(search["number"], dist_context, wrap, report)
        train_trial(variant, f"sweep {describe_values(values)}", place, context, catalogue)


def concurrent_trials(scale: ResourcesConfig, most: int, nodes: Sequence[Resources]) -> int:
    """Number of trials, 1 to ``most``, whose workers fit into ``nodes`` together.

    A trial that is started without room for its workers would only wait, and fail after a while.

    Args:
        scale: resources of a trial.
        most: maximum number of trials.
        nodes: resources of the nodes, present or to come.
    """
    fitting = [count for count in range(1, most + 1) if never_fits(bundles(scale) * count, nodes) is None]
    return max(fitting, default=1)


def check_nested_trials(config: Experiment) -> None:
    """Refuse trials of several workers that the cluster can never hold, or whose resources would leak.

    Raises:
        ConfigError: names the variant and what there is.
    """
    several = [
        study for study in config.sweep_studies if trial_scale(study.variant, config.sweep).workers > 1
    ]
    if not several:
        return
    names = ", ".join(study.name for study in several)
    if dashboard_url() is None:
        need = "needs Ray's dashboard, which frees the workers of trials that are stopped early"
        remedy = "Start Ray with its dashboard, or set sweep.workers to one."
        raise ConfigError("sweep.workers variant", need, f"none (trials of {names})", remedy)
    if is_capacity_known(config.fleet):
        nodes = cluster_capacity(config.fleet, together=False)
        for study in several:
            refuse_unplaceable(study, config.sweep, nodes)


def refuse_unplaceable(study: Study, settings: SweepConfig, nodes: Sequence[Resources]) -> None:
    """Refuse trials whose workers ``nodes`` can never hold together.

    Raises:
        ConfigError: names the variant and what there is.
    """
    scale = trial_scale(study.variant, settings)
    reason = never_fits(bundles(scale), nodes)
    if reason is not None:
        need = f"must fit into the cluster with the {scale.workers} workers of a trial of {study.name}"
        remedy = f"Set sweep.workers to one, or lower scale.workers of {study.name}."
        raise ConfigError("sweep.workers variant", need, reason, remedy)
