"""Speed of the data plane, beside torch's DataLoader and beside what the cores can decode.

::

    python jobs/benchmarks/stream epochs        Canopy and DataLoaders, first epoch and later ones
    python jobs/benchmarks/stream decode        decode_all beside a bare decoding loop
    python jobs/benchmarks/stream share         three variants at once beside one
    python jobs/benchmarks/stream first-batch   seconds to the first batch
    python jobs/benchmarks/stream memory        a data set of three times the object store
    python jobs/benchmarks/stream gpu           training on the stream beside training on one resident batch

All take ``--repeats`` and ``--out FILE.jsonl``. All but ``gpu`` take ``--sizes``. All but ``memory`` (which
has ``--store-mb``) take ``--rows``, the images of an epoch. Contenders alternate within each repeat, in
reversed order every other time. Ratios are paired and given as median [range].

Every contender may use two cores: two data tasks, two loader processes, or two decoding processes. CPU is the
user and system time of every process involved: Ray's daemons for Canopy, loader processes for the rivals.
Chips are generated JPEGs of 64 px (2 KB) and 256 px (12 KB) in the page cache. Batches hold 64 uint8 images
with flips and turns (``epochs``: and random crops); both sides use one kernel and bring the same batches to
the bit. All processes keep freed memory, as in training. Start-up and steady state are measured apart:
processes run before the clock starts, and ``first-batch`` times the start.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import jobs.benchmarks.environment  # noqa: F401  (before numpy, torch and Ray)

# isort: split
import tyro
from jobs.benchmarks.stream.costs import decode, memory, share
from jobs.benchmarks.stream.epochs import epochs, first_batch
from jobs.benchmarks.stream.gpu import gpu

from canopy.cli import run_job

COMMANDS: dict[str, Callable[..., Any]] = {
    "epochs": epochs,
    "decode": decode,
    "share": share,
    "first-batch": first_batch,
    "memory": memory,
    "gpu": gpu,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the benchmarks; returns the exit status."""
    return run_job(lambda words: tyro.extras.subcommand_cli_from_dict(COMMANDS, args=list(words)), argv)


if __name__ == "__main__":
    sys.exit(main())
