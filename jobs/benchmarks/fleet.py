"""How fast the fleet is: its loop beside a plain one, what a start costs, what running side by side gains.

::

    python jobs/benchmarks/fleet.py loop        the worker's loop beside the plainest loop in torch
    python jobs/benchmarks/fleet.py fit         a whole training beside that loop: where the seconds go
    python jobs/benchmarks/fleet.py parallel    three variants at once beside one after the other
    python jobs/benchmarks/fleet.py ddp         two workers beside one; --gpus N for GPUs
    python jobs/benchmarks/fleet.py gpu         ResNet-50 and EfficientNet-B3 at 224 pixels

All take ``--out FILE.jsonl``. Contenders alternate within each repeat, the order turned round from one to the
next; ratios are paired, and given as median [range]. CPU is user and system time of every process that is
involved. Chips are random, in a file in the page cache that all processes map; nothing is augmented.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))  # a script finds its neighbours as the tests do: as jobs.benchmarks
os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for a worker, on both sides
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a Ray of our own, on loopback, for a few minutes
# Ray's processes find the neighbours, too
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))

import canopy  # noqa: E402, F401  (it sets what Ray reads when it is imported)

# isort: split
import tyro  # noqa: E402
from jobs.benchmarks.fleet_fit import fit  # noqa: E402
from jobs.benchmarks.fleet_gpu import gpu  # noqa: E402
from jobs.benchmarks.fleet_loop import loop  # noqa: E402
from jobs.benchmarks.fleet_many import ddp, parallel  # noqa: E402

from canopy.cli import run_job  # noqa: E402

COMMANDS: dict[str, Callable[..., Any]] = {
    "loop": loop,
    "fit": fit,
    "parallel": parallel,
    "ddp": ddp,
    "gpu": gpu,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the benchmarks; returns the exit status."""
    return run_job(lambda words: tyro.extras.subcommand_cli_from_dict(COMMANDS, args=list(words)), argv)


if __name__ == "__main__":
    sys.exit(main())
