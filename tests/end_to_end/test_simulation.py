"""The simulated schedule against a small real fleet on Ray's real autoscaler, whose nodes are processes."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from tests.autoscaling import autoscaling_cluster, timeline
from tests.support import end_job, read_json, start_job, tiny_experiment, write_config

from canopy.config import Experiment, derive
from canopy.cost.groups import Cluster, PricedGroup
from canopy.cost.simulate import SimulatedJob, simulate
from canopy.train.fleet.resources import bundles

pytestmark = pytest.mark.slow

GROUPS: dict[str, dict[str, Any]] = {
    "cpu": {"resources": {"CPU": 2}, "max_workers": 2},
    "small": {"resources": {"CPU": 1, "GPU": 1, "small_gpu": 1}, "max_workers": 2},
    "large": {"resources": {"CPU": 2, "GPU": 1, "large_gpu": 1}, "max_workers": 1},
}
"""Two trainings on small nodes at the same time, and two on one large node in turn."""
IDLE_MINUTES = 1.0
PATIENCE_S = 500
Nodes = list[tuple[float, list[str]]]


def experiment() -> Experiment:
    """Two variants of two folds, each on nodes of its own group."""
    config = tiny_experiment(variants=2, trials=0, epochs=10)
    variants = [
        derive(variant, scale=derive(variant.scale, accelerator=accelerator))
        for variant, accelerator in zip(config.variants, ("small_gpu", "large_gpu"), strict=True)
    ]
    return derive(config, variants=tuple(variants), folds=2)


def run_fleet(config: Experiment, folder: Path) -> Nodes:
    """Run the stages up to ``train`` on an autoscaling cluster; its living nodes over time."""
    with (
        autoscaling_cluster(folder, GROUPS, IDLE_MINUTES) as cluster,
        cluster.watched(folder / "nodes.jsonl"),
    ):
        for stage in ("prepare", "train"):
            arguments = ["--config", str(write_config(config, folder / "c.yaml"))]
            job = start_job(
                stage,
                *arguments,
                "--run-dir",
                str(folder / "run"),
                env=cluster.env,
                log=folder / f"{stage}.log",
            )
            try:
                assert job.wait(timeout=PATIENCE_S) == 0, (folder / f"{stage}.log").read_text()
            except subprocess.TimeoutExpired:
                raise AssertionError((folder / f"{stage}.log").read_text()) from None
            finally:
                end_job(job)
    return timeline(folder / "nodes.jsonl")


def trainings(run: Path) -> dict[str, list[tuple[float, float]]]:
    """Start and end of each training in Unix seconds, by variant, in the order of their starts."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for path in run.glob("train/*/fold*/facts.json"):
        facts = read_json(path)
        spans.setdefault(path.parts[-3], []).append((facts["start"], facts["end"]))
    return {name: sorted(found) for name, found in spans.items()}


def simulated_jobs(
    config: Experiment, ran: dict[str, list[tuple[float, float]]], start_s: float
) -> list[SimulatedJob]:
    """The trainings as the simulation takes them: as long as they were, each after ``start_s`` seconds."""
    return [
        SimulatedJob(variant.name, bundles(variant.scale), (start_s + end - begun) / 3600)
        for variant in config.variants
        for begun, end in ran[variant.name]
    ]


def simulated_cluster(boot_s: float) -> Cluster:
    """The cluster of the test, all groups at one price."""
    groups = tuple(
        PricedGroup(name, {key: float(amount) for key, amount in group["resources"].items()}, most, price=1.0)
        for name, group in GROUPS.items()
        for most in [group["max_workers"]]
    )
    head = PricedGroup("head", {"CPU": 0.0}, 0, price=1.0)
    return Cluster(head, groups, sum(one.max_nodes for one in groups), IDLE_MINUTES / 60, boot_s / 3600)


def test_the_simulation_foretells_nodes_and_makespan_of_a_real_fleet(tmp_path: Path) -> None:
    config = experiment()
    nodes = run_fleet(config, tmp_path)
    ran = trainings(tmp_path / "run")
    assert {name: len(spans) for name, spans in ran.items()} == {"resnet": 2, "resnet-cbam": 2}

    # The constants of the run: when its queue began, the boot of a node, the start of a training.
    seen = {name: [when for when, names in nodes if name in names] for name in ("small", "large")}
    done = tmp_path / "run" / "train" / "done.json"
    begun = done.stat().st_mtime - read_json(done)["seconds"]
    boot = min(seen["small"][0], seen["large"][0]) - begun
    small, large = ran["resnet"], ran["resnet-cbam"]
    starts = [small[0][0] - seen["small"][0], large[0][0] - seen["large"][0], large[1][0] - large[0][1]]
    assert boot > 0
    assert min(starts) > 0
    start = median(starts)

    foretold = simulate(simulated_jobs(config, ran, start), simulated_cluster(boot))
    real = max(end for spans in ran.values() for _, end in spans) - begun
    ratio = real / (foretold.hours * 3600)
    print(f"makespan {real:.0f} s, simulated {foretold.hours * 3600:.0f} s, ratio {ratio:.2f}")
    most = {name: max(names.count(name) for _, names in nodes) for name in ("small", "large")}
    assert dict(Counter(node.group for node in foretold.nodes)) == {"head": 1, **most}
    assert 0.8 < ratio < 1.25
