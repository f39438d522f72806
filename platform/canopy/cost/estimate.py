"""What an experiment will ask a cluster for, when, and what that costs: an estimate before anything starts.

Times come from operation counts: images of all epochs, times the network's multiply-adds, times three for the
backward pass, over the speeds in the price table. Evaluation and early stops are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from canopy.config import Experiment, VariantConfig
from canopy.cost.groups import Cluster, read_cluster
from canopy.cost.prices import PriceTable, load_prices
from canopy.cost.simulate import JobSpan, Schedule, SimulatedJob, Unplaceable, simulate
from canopy.data.loading.batch_streams import TASK_CPUS
from canopy.errors import ConfigError
from canopy.runtime.stage import Stage
from canopy.sweep.trials import final_variant, trial_resources, trial_variant
from canopy.train.fleet.resources import bundles
from canopy.train.fleet.scheduler import ResourceRequest, Resources, estimate_work, longest_first
from canopy.train.training_run import training_run_name

OPERATIONS = 6
"""Operations of a training step per multiply-add: two, forwards and twice backwards."""
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Estimate:
    """The simulated schedule of an experiment.

    Args:
        schedule: the schedule; its jobs are named ``STAGE NAME``.
        prices: the price table.
    """

    schedule: Schedule
    prices: PriceTable

    @property
    def cost(self) -> float:
        """Cost in the currency of the price table."""
        return self.schedule.cost

    @property
    def node_hours(self) -> float:
        """Node-hours, the head included."""
        return self.schedule.node_hours


def estimate(config: Experiment, num_rows: int, stages: Sequence[Stage] = tuple(Stage)) -> Estimate:
    """The estimate for an experiment that starts from nothing.

    Args:
        config: the experiment, with ``budget.cluster``.
        num_rows: number of labelled chips.
        stages: the stages to run.

    Raises:
        ConfigError: when a file cannot be used, or a training fits into no group of nodes.
    """
    assert config.budget.cluster is not None
    prices = load_prices(config.budget.prices)
    cluster = read_cluster(config.budget.cluster, prices)
    try:
        return Estimate(simulate(jobs_of(config, num_rows, stages, cluster, prices), cluster), prices)
    except Unplaceable as error:
        need = "must have node groups that can hold every training"
        remedy = "Add a group of larger nodes, or lower scale.workers and the resources per worker."
        got = f"none for {error.args[0]}"
        raise ConfigError(f"budget.cluster {config.budget.cluster}", need, got, remedy) from None


def jobs_of(
    config: Experiment, num_rows: int, stages: Sequence[Stage], cluster: Cluster, prices: PriceTable
) -> list[SimulatedJob]:
    """The work of an experiment in the order of its queue; each stage waits for the one before."""
    jobs: list[SimulatedJob] = []
    if Stage.PREPARE in stages:
        cpus = cpus_of_a_node(cluster)
        hours = num_rows / (prices.chips_per_cpu_s * cpus) / SECONDS_PER_HOUR
        jobs.append(SimulatedJob("prepare images", ({"CPU": 1.0},) * cpus, hours))
    if Stage.SWEEP in stages:
        for trials in sweep_rounds(config, num_rows, prices):
            before = len(jobs)
            jobs += [
                SimulatedJob(name, needs, hours, before, config.sweep.concurrent)
                for name, needs, hours in trials
            ]
    if Stage.TRAIN in stages:
        before = len(jobs)
        requests = []
        for variant in config.trained_variants:
            hours = training_hours(variant, config.training_rows(num_rows), config, prices)
            for fold in range(config.folds):
                name = f"train {training_run_name(variant.name, fold, config.folds)}"
                requests.append(ResourceRequest(name, hours, bundles(variant.scale)))
        jobs += [SimulatedJob(one.name, one.bundles, one.work, before) for one in longest_first(requests)]
    return jobs


def cpus_of_a_node(cluster: Cluster) -> int:
    """CPUs of a node of the cheapest group with CPUs; one with accelerators only where no other is there.

    It is 1 without any group.
    """
    groups = [group for group in cluster.groups if group.resources.get("CPU", 0) >= 1]
    cheapest = min(groups, key=lambda group: (not group.is_plain, group.price), default=None)
    return 1 if cheapest is None else int(cheapest.resources["CPU"])


def sweep_rounds(
    config: Experiment, num_rows: int, prices: PriceTable
) -> list[list[tuple[str, tuple[Resources, ...], float]]]:
    """The trials and final runs of each search: name, bundles and hours of each."""
    rounds: list[list[tuple[str, tuple[Resources, ...], float]]] = []
    rows = config.training_rows(num_rows)
    for study in config.sweep_studies:
        variant = trial_variant(study.variant, config.sweep)
        several = variant.scale.workers > 1
        needs = bundles(variant.scale) if several else (trial_resources(variant.scale), {"CPU": TASK_CPUS})
        hours = training_hours(variant, min(rows, config.sweep.rows or rows), config, prices)
        rounds.append([(f"sweep {study.name} trials", needs, hours)] * config.sweep.trials)
        if config.sweep.effective_finalists:
            runs = (config.sweep.effective_finalists + 1) * config.sweep.final_seeds
            hours = training_hours(final_variant(study.variant, config.sweep), rows, config, prices)
            rounds.append([(f"sweep {study.name} finalists", needs, hours)] * runs)
    return rounds


def training_hours(variant: VariantConfig, rows: int, config: Experiment, prices: PriceTable) -> float:
    """Hours of a training on ``rows`` chips, once its nodes are there."""
    size = variant.augment.crop or config.data.image_size
    scale = variant.scale
    speed = prices.gpu_teraflops * min(1.0, scale.gpus_per_worker)  # a worker trains on one device
    if not scale.gpus_per_worker:
        speed = prices.cpu_teraflops * max(scale.cpus_per_worker, scale.threads_per_worker)
    seconds = OPERATIONS * estimate_work(variant, rows, size) / (speed * 1e12)
    return (seconds + prices.start_seconds) / SECONDS_PER_HOUR


def refuse_over_budget(config: Experiment, found: Estimate) -> None:
    """Refuse an experiment whose estimate is above its limit.

    Raises:
        ConfigError: names the limit, the estimate and the remedy.
    """
    budget, unit = config.budget, found.prices.currency
    remedy = "Raise it, or train fewer or smaller variants; --dry-run without a limit prints the estimate."
    if budget.max_cost is not None and found.cost > budget.max_cost:
        got = f"{budget.max_cost:g} and an estimate of {found.cost:.2f} {unit}"
        raise ConfigError("--max-cost", "must be at least the estimate", got, remedy)
    if budget.max_node_hours is not None and found.node_hours > budget.max_node_hours:
        got = f"{budget.max_node_hours:g} and an estimate of {found.node_hours:.2f} node-hours"
        raise ConfigError("--max-node-hours", "must be at least the estimate", got, remedy)


def grouped(jobs: Sequence[JobSpan]) -> list[tuple[str, list[JobSpan]]]:
    """Jobs by name, the folds of a variant together, in the order of their first starts."""
    found: dict[str, list[JobSpan]] = {}
    for job in sorted(jobs, key=lambda one: one.start):
        found.setdefault(job.name.partition("/fold")[0], []).append(job)
    return list(found.items())
