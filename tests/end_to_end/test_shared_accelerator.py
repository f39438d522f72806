"""Trials of half an accelerator share a node of a private cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.clusters import Nodes
from tests.support import tiny_experiment

from canopy.config import ResourcesConfig, SweepConfig, derive
from canopy.storage.run_dir import RunDir
from canopy.sweep.records import TrialRecords
from canopy.sweep.trials import TrialContext, trial_variant

pytestmark = pytest.mark.slow
PATIENCE_S = 300
TRIALS = 4
TRIAL_S = 8.0


def run_trials(folder: str) -> None:
    """Run a round of trials of half an accelerator in this process; each writes where and when it ran."""
    import ray
    from ray import tune

    from canopy.runtime.console import Console
    from canopy.sweep.rounds import PointSearcher, RoundClock, make_tuner
    from canopy.sweep.trial_reporter import TrialReporter
    from canopy.sweep.trials import trial_resources

    def trial(search: dict[str, Any]) -> None:
        start, node = time.time(), ray.get_runtime_context().get_node_id()
        for epoch in (1, 2):
            time.sleep(TRIAL_S / 2)
            result = {"epoch": epoch, "reference_epochs": epoch, "score": 0.5, "images_per_s": 1.0}
            tune.report({**result, "seconds": TRIAL_S / 2})
        found = {"start": start, "end": time.time(), "node": node, "gpus": ray.get_gpu_ids()}
        Path(folder, f"{search['number']}.json").write_text(json.dumps(found))

    scale = ResourcesConfig(cpus_per_worker=0.25, gpus_per_worker=0.5)
    settings = SweepConfig(trials=TRIALS, epochs=2, concurrent=TRIALS, scheduler="none")
    variant = derive(trial_variant(tiny_experiment().variants[0], settings), scale=scale)
    chips: Any = None  # no trial reads chips
    context = TrialContext(variant, settings, chips, TrialRecords(RunDir(folder), "0" * 64))
    ray.init(address="auto", log_to_driver=False)
    resources = tune.PlacementGroupFactory([trial_resources(scale)])
    clock = RoundClock(str(Path(folder, "clock.json")), None)
    points = [{"loss.gamma": float(number)} for number in range(TRIALS)]
    searcher = PointSearcher(list(range(TRIALS)), lambda number, *_: points[number], context.records, clock)
    reporter = TrialReporter(Console(), context, TRIALS)
    trainable = tune.with_resources(trial, resources)
    make_tuner(trainable, context, searcher, TRIALS, str(Path(folder, "tune")), reporter).fit()


def test_trials_of_half_an_accelerator_share_a_node(nodes: Nodes, tmp_path: Path) -> None:
    """Two of four trials run at a time on the node's one accelerator; no trial runs anywhere else."""
    node = nodes._cluster.add_node(num_cpus=2, num_gpus=1, object_store_memory=150 << 20)
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": nodes.address}
    code = f"from tests.end_to_end.test_shared_accelerator import run_trials; run_trials({str(tmp_path)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, timeout=PATIENCE_S, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ran = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(TRIALS)]
    assert {one["node"] for one in ran} == {node.node_id}
    assert all(one["gpus"] in ([0], ["0"]) for one in ran), "all on the same device"
    together = [
        sum(other["start"] < one["start"] + TRIAL_S / 2 < other["end"] for other in ran) for one in ran
    ]
    assert max(together) == 2, "two halves fit at a time, and were used"
