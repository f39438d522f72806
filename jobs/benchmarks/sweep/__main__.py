"""Does the sweep pay: quality per compute, and its overhead over a plain loop.

::

    python jobs/benchmarks/sweep quality --data generated      what each kind of search finds, on test chips
    python jobs/benchmarks/sweep members                       chosen trials against copies of the best
    python jobs/benchmarks/sweep overhead                      trials per hour against a plain loop
    python jobs/benchmarks/sweep table                         the tables, from the files of figures alone

Figures are appended to ``platform/docs/sweep/`` (``--out`` for another folder) as JSON lines, each as soon as
it is known; the same command, started again, goes on. ``--minutes`` ends a start early.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import jobs.benchmarks.env_vars  # noqa: F401  (before numpy, torch and Ray)

# isort: split
import tyro
from jobs.benchmarks.sweep.members import members
from jobs.benchmarks.sweep.overhead import overhead
from jobs.benchmarks.sweep.quality import quality
from jobs.benchmarks.sweep.tables import table

from canopy.cli import run_job

COMMANDS: dict[str, Callable[..., Any]] = {
    "quality": quality,
    "members": members,
    "overhead": overhead,
    "table": table,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the benchmarks and return the exit status."""
    return run_job(lambda words: tyro.extras.subcommand_cli_from_dict(COMMANDS, args=list(words)), argv)


if __name__ == "__main__":
    sys.exit(main())
