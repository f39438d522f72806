"""Speed of data loading, compared with torch's DataLoader and with a bare decoding loop.

::

    python jobs/benchmarks/stream epochs        Canopy and DataLoaders, first epoch and later epochs
    python jobs/benchmarks/stream decode        decode_blocks and a bare decoding loop
    python jobs/benchmarks/stream share         three variants at once and one alone
    python jobs/benchmarks/stream first-batch   seconds to the first batch
    python jobs/benchmarks/stream memory        a data set three times as large as the object store
    python jobs/benchmarks/stream gpu           training on the stream and on one resident batch
    python jobs/benchmarks/stream catalogue     memory and time per row of reading the catalogue

All commands take ``--repeats`` and ``--out FILE.jsonl``. All but ``gpu`` and ``catalogue`` take ``--sizes``.
All but ``memory``, which takes ``--store-mb``, take ``--rows``, the number of images in an epoch. Contenders
alternate within each repeat, in reversed order every other repeat. Ratios are paired and shown as median
[range].

Each contender may use two cores: two data tasks, two loader processes, or two decoding processes. CPU is the
user and system time of all processes involved, including Ray's daemons for Canopy and the loader processes
for the DataLoaders. Chips are generated JPEGs of 64 px (2 KB) and 256 px (12 KB) in the page cache. Batches
hold 64 uint8 images with flips and quarter turns (in ``epochs`` also random crops). Both sides use the same
kernels and deliver identical batches. All processes keep freed memory, as in training. Start-up and steady
state are measured separately: processes run before the clock starts, and ``first-batch`` measures start-up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import jobs.benchmarks.env_vars  # noqa: F401  (before numpy, torch and Ray)

# isort: split
import tyro
from jobs.benchmarks.stream.catalogue import catalogue
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
    "catalogue": catalogue,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the benchmarks and return the exit status."""
    return run_job(lambda words: tyro.extras.subcommand_cli_from_dict(COMMANDS, args=list(words)), argv)


if __name__ == "__main__":
    sys.exit(main())
