"""Ray's real autoscaler, with nodes as processes: the right groups come, at the right time, and go."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.autoscaling import AutoscalingCluster, autoscaling_cluster, raylets_with, timeline
from tests.support import committed, end_job, read_json, start_job, tiny_experiment, wait_until, write_config

from canopy.config import Experiment, derive

pytestmark = pytest.mark.slow

GROUPS: dict[str, dict[str, Any]] = {
    "cpu": {"resources": {"CPU": 2}, "max_workers": 2},
    "small": {"resources": {"CPU": 1, "GPU": 1, "small_gpu": 1}, "max_workers": 2},
    "large": {"resources": {"CPU": 2, "GPU": 1, "large_gpu": 1}, "max_workers": 2},
}
"""Trainings ask for the resource of their group, as asking for a GPU would need a real one. The GPUs are
there because the autoscaler keeps nodes with GPUs for those who need them."""
PATIENCE_S = 400


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[AutoscalingCluster]:
    with autoscaling_cluster(tmp_path, GROUPS) as running:
        yield running


def experiment(*accelerators: str, epochs: int = 12) -> Experiment:
    """A variant for each of ``accelerators``."""
    config = tiny_experiment(variants=2, trials=0, epochs=epochs)
    variants = [
        derive(variant, scale=derive(variant.scale, accelerator=accelerator))
        for variant, accelerator in zip(config.variants, accelerators, strict=True)
    ]
    return derive(config, variants=tuple(variants))


def start(cluster: AutoscalingCluster, config: Experiment, folder: Path) -> subprocess.Popen[bytes]:
    arguments = ["--config", str(write_config(config, folder / "c.yaml")), "--run-dir", str(folder / "run")]
    return start_job("pipeline", *arguments, env=cluster.env, log=folder / "log")


def test_variants_bring_nodes_of_their_groups_which_go_when_idle(
    cluster: AutoscalingCluster, tmp_path: Path
) -> None:
    """A node is killed in the middle: another one of its group comes, and the training goes on."""
    log, run = tmp_path / "log", tmp_path / "run"
    with cluster.watched(tmp_path / "nodes.jsonl"):
        job = start(cluster, experiment("small_gpu", "large_gpu"), tmp_path)
        try:
            wait_until("a checkpoint", lambda: committed(run), job, log, PATIENCE_S)
            (raylet,) = raylets_with("small_gpu")
            for process in [raylet, *raylet.children(recursive=True)]:
                process.send_signal(signal.SIGKILL)
            assert job.wait(timeout=PATIENCE_S) == 0, log.read_text()
        finally:
            end_job(job)
        ended = time.time()
        while timeline(tmp_path / "nodes.jsonl")[-1][1] != ["head"]:
            assert time.time() < ended + 120, timeline(tmp_path / "nodes.jsonl")[-1]
            time.sleep(1)
    seen = timeline(tmp_path / "nodes.jsonl")
    prepared = (run / "prepare" / "done.json").stat().st_mtime
    before = {name for when, names in seen if when < prepared for name in names}
    assert before == {"head", "cpu"}, "a stage on CPUs held an accelerator"
    assert any({"small", "large"} <= set(names) for _, names in seen), "the variants did not train at once"
    assert max(names.count("large") for _, names in seen) == 1
    trainings = [read_json(path) for path in run.glob("train/*/fold0/facts.json")]
    assert len(trainings) == 2
    small = read_json(run / "train" / "resnet" / "fold0" / "facts.json")
    assert small["resumed"], "the training of the killed node began from the start"


def test_what_no_group_can_hold_is_an_error_at_once(cluster: AutoscalingCluster, tmp_path: Path) -> None:
    job = start(cluster, experiment("small_gpu", "huge_gpu"), tmp_path)
    assert job.wait(timeout=120) == 2, (tmp_path / "log").read_text()
    line = (tmp_path / "log").read_text().splitlines()[-1]
    assert "variant resnet-cbam: scale must fit into the cluster" in line
    assert "a process of 0.25 CPU, 1 huge_gpu, which no node has" in line
    assert not (tmp_path / "run" / "prepare" / "done.json").exists()
