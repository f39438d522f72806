"""Speed of the fleet: its training loop, the cost of starting a training, the gain of parallel variants.

::

    python jobs/benchmarks/fleet loop        the worker's loop and a minimal loop in torch
    python jobs/benchmarks/fleet fit         a whole training and that loop, with the time of each part
    python jobs/benchmarks/fleet parallel    three variants at once and one after the other
    python jobs/benchmarks/fleet ddp         two workers and one; --gpus N for GPUs
    python jobs/benchmarks/fleet gpu         ResNet-50 and EfficientNet-B3 at 224 pixels
    python jobs/benchmarks/fleet simulate    makespan and cost on 4, 16 and 64 GPUs; starts nothing

The others take ``--out FILE.jsonl``. Contenders alternate within each repeat, in reversed order every other
repeat. Ratios are paired and shown as median [range]. CPU is the user and system time of all processes
involved. Chips are random, in a file in the page cache that all processes map, and are not augmented.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import jobs.benchmarks.env_vars  # noqa: F401  (before numpy, torch and Ray)

# isort: split
import tyro
from jobs.benchmarks.fleet.gpu import gpu
from jobs.benchmarks.fleet.loop import loop
from jobs.benchmarks.fleet.parallelism import ddp, parallel
from jobs.benchmarks.fleet.simulate import simulate_fleet
from jobs.benchmarks.fleet.whole_training import fit

from canopy.cli import run_job

COMMANDS: dict[str, Callable[..., Any]] = {
    "loop": loop,
    "fit": fit,
    "parallel": parallel,
    "ddp": ddp,
    "gpu": gpu,
    "simulate": simulate_fleet,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the benchmarks and return the exit status."""
    return run_job(lambda words: tyro.extras.subcommand_cli_from_dict(COMMANDS, args=list(words)), argv)


if __name__ == "__main__":
    sys.exit(main())
