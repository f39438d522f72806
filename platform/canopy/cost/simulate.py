"""A simulated schedule: which nodes an autoscaler starts for a queue of jobs, when, and what they cost.

Pure functions. Jobs start in the order of the queue as soon as their bundles fit; one that does not fit is
overtaken, without the fleet's rule that nothing may delay it (:mod:`canopy.train.fleet.scheduler`). A bundle
goes to a node that is there if one has room, else to a new node of the group that is cheapest for the whole
queue. As with Ray's autoscaler, work without GPUs starts a GPU node only where no other group fits. Nodes end
after they have been idle for some time. Spot nodes are taken away at random: what ran on them starts again
from its last checkpoint.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from canopy.cost.groups import Cluster, PricedGroup
from canopy.train.fleet.scheduler import Resources, bundle_size, fits


@dataclass(frozen=True)
class SimulatedJob:
    """A piece of work.

    Args:
        name: its name.
        bundles: resources of each process; one bundle lies on one node.
        hours: duration, once its nodes are there.
        after: number of jobs, from the first on, that must have ended before it starts.
        together: largest number of jobs of the same name that run at a time; None: no limit.
    """

    name: str
    bundles: tuple[Resources, ...]
    hours: float
    after: int = 0
    together: int | None = None


@dataclass(frozen=True)
class JobSpan:
    """When a job ran, in hours from the start, and on which nodes: a count by the name of their group."""

    name: str
    start: float
    end: float
    nodes: dict[str, int]
    preemptions: int


@dataclass(frozen=True)
class NodeSpan:
    """A node's life in hours from the start: from its request to its end."""

    group: str
    price: float
    start: float
    end: float

    @property
    def hours(self) -> float:
        """Hours that are charged."""
        return self.end - self.start


@dataclass(frozen=True)
class Schedule:
    """The result of a simulation: jobs in the order of their ends, and nodes, the head first."""

    jobs: tuple[JobSpan, ...]
    nodes: tuple[NodeSpan, ...]

    @property
    def hours(self) -> float:
        """Hours until the last job ends."""
        return max((job.end for job in self.jobs), default=0.0)

    @property
    def node_hours(self) -> float:
        """Node-hours of all nodes."""
        return sum(node.hours for node in self.nodes)

    @property
    def cost(self) -> float:
        """Cost of all nodes."""
        return sum(node.hours * node.price for node in self.nodes)


@dataclass
class _Node:
    group: PricedGroup
    start: float
    ready: float
    free: Resources
    idle_since: float
    jobs: set[int] = field(default_factory=set)
    end: float | None = None


@dataclass
class _Run:
    start: float
    nodes: list[tuple[_Node, Resources]]
    end: float


class Unplaceable(ValueError):  # noqa: N818 (a finding about a job, turned into a config error above)
    """A job that no number of nodes can hold; the argument is its name."""


def simulate(
    jobs: Sequence[SimulatedJob],
    cluster: Cluster,
    preemptions_per_hour: float = 0.0,
    lost_hours: float = 0.0,
    seed: int = 0,
) -> Schedule:
    """Run ``jobs`` on a cluster that starts with its head alone.

    Args:
        jobs: jobs in the order of the queue.
        cluster: what may be started.
        preemptions_per_hour: rate at which a spot node is taken away.
        lost_hours: most of a job's work that a preemption costs: the time between two checkpoints.
        seed: seed of the preemptions.

    Raises:
        Unplaceable: for a job that does not fit into the empty cluster.
    """
    return _Simulation(jobs, cluster, preemptions_per_hour, lost_hours, seed).run()


class _Simulation:
    def __init__(
        self, jobs: Sequence[SimulatedJob], cluster: Cluster, rate: float, lost_hours: float, seed: int
    ) -> None:
        self.jobs, self.cluster, self.rate, self.lost = jobs, cluster, rate, lost_hours
        self.random, self.order = random.Random(seed), count()
        self.events: list[tuple[float, int, str, int, float]] = []
        self.queue = list(range(len(jobs)))
        self.left = {number: job.hours for number, job in enumerate(jobs)}
        self.running: dict[int, _Run] = {}
        self.nodes: list[_Node] = []
        self.begun: dict[int, float] = {}
        self.preempted = dict.fromkeys(range(len(jobs)), 0)
        self.spans: dict[int, JobSpan] = {}

    def run(self) -> Schedule:
        now = 0.0
        self.start_jobs(now)
        while self.running or self.queue:
            if not self.events:
                raise Unplaceable(self.jobs[self.queue[0]].name)
            now, _, kind, number, end = heapq.heappop(self.events)
            if kind == "end":
                run = self.running.get(number)
                if run is not None and run.end == end:
                    self.finish(number, now)
            elif kind == "preempt" and self.nodes[number].end is None and self.nodes[number].jobs:
                self.preempt(self.nodes[number], now)
            self.end_idle_nodes(now)
            self.start_jobs(now)
        return self.schedule()

    def schedule(self) -> Schedule:
        last = max((span.end for span in self.spans.values()), default=0.0)
        head = NodeSpan(self.cluster.head.name, self.cluster.head.price, 0.0, last)
        nodes = [head]
        for node in self.nodes:
            # A cluster that is taken down after the last job does not wait for the idle time-out.
            end = min(node.idle_since + self.cluster.idle_hours, last) if node.end is None else node.end
            nodes.append(NodeSpan(node.group.name, node.group.price, node.start, max(end, node.start)))
        jobs = sorted(self.spans.values(), key=lambda span: (span.end, span.start))
        return Schedule(tuple(jobs), tuple(nodes))

    def end_idle_nodes(self, now: float) -> None:
        for node in self.nodes:
            if node.end is None and not node.jobs and now >= node.idle_since + self.cluster.idle_hours:
                node.end = node.idle_since + self.cluster.idle_hours

    def start_jobs(self, now: float) -> None:
        for number in list(self.queue):
            job = self.jobs[number]
            if any(other not in self.spans for other in range(job.after)):
                continue
            beside = sum(self.jobs[other].name == job.name for other in self.running)
            if job.together is not None and beside >= job.together:
                continue
            placed = self.place(job.bundles, now)
            if placed is None:
                continue
            self.queue.remove(number)
            start = max([now, *(node.ready for node, _ in placed)])
            run = _Run(start, placed, start + self.left[number])
            self.running[number] = run
            self.begun.setdefault(number, start)
            for node, _ in placed:
                node.jobs.add(number)
            heapq.heappush(self.events, (run.end, next(self.order), "end", number, run.end))

    def place(self, bundles: Sequence[Resources], now: float) -> list[tuple[_Node, Resources]] | None:
        """Nodes for all bundles, present ones first; None, and nothing is taken, when they do not fit."""
        placed: list[tuple[_Node, Resources]] = []
        new: list[_Node] = []
        for bundle in sorted(bundles, key=bundle_size, reverse=True):
            living = [node for node in [*self.nodes, *new] if node.end is None and fits(bundle, node.free)]
            own = {id(taken) for taken, _ in placed}
            node = min(
                living, key=lambda one: (id(one) not in own, bundle_size(one.free), one.ready), default=None
            )
            if node is None:
                node = self.new_node(bundle, new, now)
                if node is None:
                    for taken, amount in placed:
                        _give(taken, amount)
                    return None
                new.append(node)
            _take(node, bundle)
            placed.append((node, bundle))
        for node in new:
            self.nodes.append(node)
            if node.group.is_spot and self.rate > 0:
                time = node.ready + self.random.expovariate(self.rate)
                heapq.heappush(self.events, (time, next(self.order), "preempt", len(self.nodes) - 1, 0.0))
        return placed

    def new_node(self, bundle: Resources, new: Sequence[_Node], now: float) -> _Node | None:
        """A node of the cheapest group for a bundle, counted per bundle of the queue that it can hold."""
        living = [node for node in [*self.nodes, *new] if node.end is None]
        if len(living) >= self.cluster.max_nodes:
            return None
        choices = [
            group
            for group in self.cluster.groups
            if fits(bundle, group.resources)
            and sum(node.group.name == group.name for node in living) < group.max_nodes
        ]
        if not choices:
            return None
        needed = sum(bundle == other for number in self.queue for other in self.jobs[number].bundles)
        best = min(choices, key=lambda group: _preference(group, bundle, needed))
        ready = now + self.cluster.boot_hours
        return _Node(best, now, ready, dict(best.resources), idle_since=ready)

    def finish(self, number: int, now: float) -> None:
        run = self.running.pop(number)
        counts: dict[str, int] = {}
        for node in {id(node): node for node, _ in run.nodes}.values():
            counts[node.group.name] = counts.get(node.group.name, 0) + 1
        self.release(run, number, now)
        begun = self.begun[number]
        self.spans[number] = JobSpan(self.jobs[number].name, begun, now, counts, self.preempted[number])

    def preempt(self, lost: _Node, now: float) -> None:
        """Take a node away: its jobs go back to the front of the queue."""
        for number in sorted(lost.jobs, reverse=True):
            run = self.running.pop(number)
            done = max(0.0, now - run.start)
            # The last checkpoint is up to one interval old.
            kept = max(0.0, done - self.random.random() * self.lost)
            self.left[number] -= kept
            self.preempted[number] += 1
            self.release(run, number, now)
            self.queue.insert(0, number)
        lost.end = now

    def release(self, run: _Run, number: int, now: float) -> None:
        for node, bundle in run.nodes:
            _give(node, bundle)
            node.jobs.discard(number)
            node.idle_since = now
            if not node.jobs:  # its end gives its place to another node
                end = now + self.cluster.idle_hours
                heapq.heappush(self.events, (end, next(self.order), "idle", 0, 0.0))


def _preference(group: PricedGroup, bundle: Resources, needed: int) -> tuple[bool, float, float]:
    wastes_gpus = group.resources.get("GPU", 0) > 0 and not bundle.get("GPU")
    return wastes_gpus, group.price / _held(bundle, needed, group), -group.priority


def _held(bundle: Resources, needed: int, group: PricedGroup) -> int:
    """How many of ``needed`` equal bundles a node holds."""
    room = min(int(group.resources.get(name, 0) / amount + 1e-9) for name, amount in bundle.items() if amount)
    return max(1, min(room, needed))


def _take(node: _Node, bundle: Resources) -> None:
    for name, amount in bundle.items():
        node.free[name] = node.free.get(name, 0.0) - amount


def _give(node: _Node, bundle: Resources) -> None:
    for name, amount in bundle.items():
        node.free[name] = node.free.get(name, 0.0) + amount
