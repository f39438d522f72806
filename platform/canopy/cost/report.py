"""An estimate as text, for ``--dry-run``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from canopy.cost.estimate import Estimate, grouped
from canopy.cost.simulate import JobSpan
from canopy.runtime.console import table_lines
from canopy.runtime.durations import clock_duration

JOB_HEADINGS = ("stage", "what", "jobs", "nodes of each", "first start", "last end")
NODE_HEADINGS = ("nodes", "number", "first start", "last end", "node-hours", "per hour", "cost")
JOB_RIGHT = {"jobs", "first start", "last end"}
NODE_RIGHT = set(NODE_HEADINGS[1:])


def estimate_lines(found: Estimate) -> list[str]:
    """The work in the order of its starts, the nodes by their group, and the sum."""
    schedule, unit = found.schedule, found.prices.currency
    lines = table_lines(
        JOB_HEADINGS, [job_row(name, jobs) for name, jobs in grouped(schedule.jobs)], JOB_RIGHT
    )
    rows = []
    for group in dict.fromkeys(node.group for node in schedule.nodes):
        nodes = [node for node in schedule.nodes if node.group == group]
        hours = sum(node.hours for node in nodes)
        start, end = min(node.start for node in nodes), max(node.end for node in nodes)
        price = nodes[0].price
        cells = [group, str(len(nodes)), time_text(start), time_text(end)]
        rows.append((*cells, f"{hours:.2f}", f"{price:.2f}", f"{hours * price:.2f}"))
    lines += ["", *table_lines(NODE_HEADINGS, rows, NODE_RIGHT), ""]
    lines.append(
        f"estimate: {found.node_hours:.1f} node-hours, {found.cost:.2f} {unit}, done after "
        f"{clock_duration(schedule.hours * 3600)} on a cluster with its head alone"
    )
    lines.append(
        f"times are computed from operation counts at {found.prices.gpu_teraflops:g} TFLOP/s per GPU and "
        f"{found.prices.cpu_teraflops:g} per CPU, as if no spot node were preempted"
    )
    return lines


def job_row(name: str, jobs: Sequence[JobSpan]) -> tuple[str, ...]:
    """Cells of the jobs of one name."""
    stage, _, what = name.partition(" ")
    kinds = Counter(
        " + ".join(f"{count} {group}" for group, count in sorted(job.nodes.items())) for job in jobs
    )
    nodes = ", ".join(kinds) if len(kinds) < 3 else f"{', '.join(list(kinds)[:2])}, …"
    start, end = min(job.start for job in jobs), max(job.end for job in jobs)
    return stage, what, str(len(jobs)), nodes, time_text(start), time_text(end)


def time_text(hours: float) -> str:
    """Hours from the start as ``H:MM:SS``."""
    return clock_duration(hours * 3600)
