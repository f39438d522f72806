"""Speed and memory of inference; how often an evidence map points at what it explains.

::

    python jobs/benchmarks/inference speed      batch inference and the best bare torch loop
    python jobs/benchmarks/inference passes     three members in one pass and in three passes
    python jobs/benchmarks/inference memory     100,000 tiny images: the driver's memory over time
    python jobs/benchmarks/inference autotune   training, evaluation and prediction, tuned and by default
    python jobs/benchmarks/inference pointing --model RUN_DIR   evidence maps on generated chips
    python jobs/benchmarks/inference export --run-dir RUN_DIR   ONNX Runtime and torch on the CPU
    python jobs/benchmarks/inference scene-memory   a scene of 30,000 by 30,000 by 4
    python jobs/benchmarks/inference scene-sample   two made-up scenes of three labels, to try maps
    python jobs/benchmarks/inference scene-position place of a known object on the map of 10,000 by 10,000
    python jobs/benchmarks/inference scene-speed    windows of a scene, and the same windows as chips
    python jobs/benchmarks/inference serve --run-dir RUN_DIR    the service under load and the bare model

``speed``, ``passes``, ``memory`` and ``autotune`` take ``--out FILE.jsonl`` and make their own model: random
weights, which cost as much as trained ones. Images are generated JPEGs in the page cache. Each contender may
use two cores.
``pointing`` needs a finished run over generated chips.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import jobs.benchmarks.env_vars  # noqa: F401  (before numpy, torch and Ray)

# isort: split
import tyro
from jobs.benchmarks.inference.export import export
from jobs.benchmarks.inference.memory import memory
from jobs.benchmarks.inference.pointing import pointing
from jobs.benchmarks.inference.scene_sample import scene_sample
from jobs.benchmarks.inference.scenes import scene_memory, scene_position, scene_speed
from jobs.benchmarks.inference.serve import serve
from jobs.benchmarks.inference.speed import passes, speed
from jobs.benchmarks.inference.tuned import autotune

from canopy.cli import run_job

COMMANDS: dict[str, Callable[..., Any]] = {
    "speed": speed,
    "passes": passes,
    "memory": memory,
    "autotune": autotune,
    "pointing": pointing,
    "export": export,
    "scene-memory": scene_memory,
    "scene-sample": scene_sample,
    "scene-position": scene_position,
    "scene-speed": scene_speed,
    "serve": serve,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the benchmarks and return the exit status."""
    return run_job(lambda words: tyro.extras.subcommand_cli_from_dict(COMMANDS, args=list(words)), argv)


if __name__ == "__main__":
    sys.exit(main())
