"""A simulated fleet on an autoscaling cluster: makespan and cost for several numbers of GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from canopy.config import BudgetConfig, Experiment, derive
from canopy.config.presets import PRESETS, preset
from canopy.cost.estimate import jobs_of, training_hours
from canopy.cost.groups import Cluster, read_cluster
from canopy.cost.prices import PriceTable, load_prices
from canopy.cost.simulate import Schedule, SimulatedJob, simulate
from canopy.errors import ConfigError, nearest
from canopy.runtime.console import table_lines
from canopy.runtime.stage import Stage

HEADINGS = ("GPUs", "makespan, h", "node-hours", "cost", "GPUs in use", "preemptions", "bound")
SMALL_NODES = 4
"""Nodes without GPUs beside those with GPUs."""


@dataclass(frozen=True)
class Outcome:
    """One simulated fleet.

    Args:
        schedule: nodes and jobs.
        gpu_share: share of the GPU nodes' time in which a training or trial runs on their GPUs, in [0, 1].
    """

    schedule: Schedule
    gpu_share: float

    @property
    def preemptions(self) -> int:
        """Number of trainings and trials that lost a node."""
        return sum(job.preemptions for job in self.schedule.jobs)


def simulate_fleet(
    preset_name: str = "amazon",
    chips: int = 40_479,
    gpus: tuple[int, ...] = (4, 16, 64),
    cluster: str = "cluster.yaml",
    group: str = "gpu4-spot",
    prices: str | None = None,
    preemptions_per_hour: float = 0.05,
    boot_minutes: float | None = None,
    seeds: int = 5,
) -> None:
    """Makespan and cost of a preset for several numbers of GPUs: a simulation, nothing is started.

    All GPUs are in nodes of one group; the queue and the autoscaler are those of ``--dry-run``, without the
    fleet's rule for overtaking. The column "bound" holds a lower bound of the makespan: the work divided
    among all GPUs, or the longest job of each stage in turn. Figures are medians over seeds, with the range.

    Args:
        preset_name: preset to train.
        chips: number of labelled chips.
        gpus: numbers of GPUs to compare.
        cluster: file for ``ray up`` with the group.
        group: node group with GPUs.
        prices: price table; None: the built-in one.
        preemptions_per_hour: rate at which a spot node is taken away.
        boot_minutes: minutes until a node works; None: those of the price table.
        seeds: number of simulations, each with other preemptions.
    """
    if preset_name not in PRESETS:
        raise ConfigError("--preset-name", "must be a preset", preset_name, nearest(preset_name, PRESETS))
    table = load_prices(prices)
    if boot_minutes is not None:
        table = derive(table, boot_minutes=boot_minutes)
    config = derive(preset(preset_name), budget=BudgetConfig(cluster=cluster, prices=prices))
    whole = read_cluster(cluster, table)
    lost_hours = hours_between_checkpoints(config, chips, table)
    rows = []
    for count in gpus:
        limited = with_gpus(whole, group, count)
        jobs = jobs_of(config, chips, tuple(Stage), limited, table)
        outcomes = [outcome(jobs, limited, preemptions_per_hour, lost_hours, seed) for seed in range(seeds)]
        rows.append(cells(count, outcomes, lower_bound(jobs, count, config)))
    print(f"{preset_name}, {chips:,} chips, nodes of {group}, {preemptions_per_hour:g} preemptions per hour")
    print(*table_lines(HEADINGS, rows, HEADINGS), sep="\n")
    print(assumptions(table))


def hours_between_checkpoints(config: Experiment, chips: int, prices: PriceTable) -> float:
    """Most hours that a training loses with a node: without checkpoints by time, the longest epoch."""
    if config.fleet.checkpoint_minutes is not None:
        return config.fleet.checkpoint_minutes / 60
    rows = config.training_rows(chips)
    return max(
        training_hours(variant, rows, config, prices)
        / (variant.optim.epochs + variant.optim.rebalance_epochs)
        for variant in config.variants
    )


def with_gpus(cluster: Cluster, group: str, gpus: int) -> Cluster:
    """``cluster`` with ``gpus`` GPUs in nodes of one group and none in others.

    Raises:
        ConfigError: when the group has no GPUs, or the number is no multiple of those of a node.
    """
    found = next((one for one in cluster.groups if one.name == group), None)
    if found is None or not found.resources.get("GPU"):
        names = [one.name for one in cluster.groups if one.resources.get("GPU")]
        raise ConfigError("--group", "must be a node group with GPUs", group, nearest(group, names))
    nodes, left = divmod(gpus, int(found.resources["GPU"]))
    if left or not nodes:
        need = f"must be multiples of the {found.resources['GPU']:g} GPUs of a node of {group}"
        raise ConfigError("--gpus", need, gpus, "Round it, or choose another --group.")
    others = [one for one in cluster.groups if not one.resources.get("GPU")]
    return replace(
        cluster,
        groups=(replace(found, max_nodes=nodes), *others),
        max_nodes=nodes + (SMALL_NODES if others else 0),
    )


def outcome(
    jobs: Sequence[SimulatedJob], cluster: Cluster, rate: float, lost_hours: float, seed: int
) -> Outcome:
    """One simulation."""
    schedule = simulate(jobs, cluster, rate, lost_hours, seed)
    there = sum(
        node.hours * group.resources["GPU"]
        for node in schedule.nodes
        for group in cluster.groups
        if group.name == node.group and group.resources.get("GPU")
    )
    work = sum(job.hours * gpus_of(job) for job in jobs)
    return Outcome(schedule, work / there if there else 0.0)


def gpus_of(job: SimulatedJob) -> float:
    """GPUs that a job holds."""
    return sum(bundle.get("GPU", 0.0) for bundle in job.bundles)


def lower_bound(jobs: Sequence[SimulatedJob], gpus: int, config: Experiment) -> float:
    """Hours that no schedule undercuts: the work over all GPUs, or the longest job of each stage in turn."""
    chain = 0.0
    for stage in ("prepare", "sweep", "train"):
        own = [job for job in jobs if job.name.startswith(stage)]
        chain += max((job.hours for job in own), default=0.0)
    trials = [job for job in jobs if job.name.startswith("sweep")]
    in_turn = sum(job.hours for job in trials) / config.sweep.concurrent
    on_gpus = sum(job.hours * gpus_of(job) for job in trials) / gpus
    rest = sum(job.hours * gpus_of(job) for job in jobs if job.name.startswith("train"))
    return max(chain, max(in_turn, on_gpus) + rest / gpus)


def cells(gpus: int, outcomes: Sequence[Outcome], bound: float) -> tuple[str, ...]:
    """The row of one number of GPUs."""
    schedules = [one.schedule for one in outcomes]
    return (
        str(gpus),
        with_range([one.hours for one in schedules]),
        with_range([one.node_hours for one in schedules]),
        with_range([one.cost for one in schedules]),
        f"{median(one.gpu_share for one in outcomes):.0%}",
        f"{median(one.preemptions for one in outcomes):g}",
        f"{bound:.2f}",
    )


def with_range(values: Sequence[float]) -> str:
    """Median and range, such as ``3.10 [3.00, 3.40]``."""
    return f"{median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def assumptions(table: PriceTable) -> str:
    """The constants of the simulation in a line."""
    return (
        f"{table.gpu_teraflops:g} TFLOP/s per GPU, {table.boot_minutes:g} min to boot a node, "
        f"{table.start_seconds:g} s to start a training, prices in {table.currency}"
    )
