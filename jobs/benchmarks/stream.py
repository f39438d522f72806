"""How fast the data plane is, beside torch's DataLoader and beside what the cores can decode at all.

::

    python jobs/benchmarks/stream.py epochs        ours and DataLoaders, first epoch and later ones
    python jobs/benchmarks/stream.py decode        decode_all beside a bare decoding loop
    python jobs/benchmarks/stream.py share         three variants at once beside one
    python jobs/benchmarks/stream.py first-batch   seconds to the first batch
    python jobs/benchmarks/stream.py memory        three times the object store
    python jobs/benchmarks/stream.py gpu           training beside training on one resident batch

All take ``--repeats`` and ``--out FILE.jsonl``; all but ``gpu`` take ``--sizes``, and all but ``memory``
(which has ``--store-mb``) take ``--rows``, the images of an epoch. Contenders alternate within each repeat,
the order turned round from one to the next; ratios are paired, and given as median [range]. Every contender
may use two cores: two data tasks, two loader processes, two decoding processes. CPU is user and system
time of every process that is involved: Ray's own daemons are counted for ours, loader processes for
theirs. Chips are generated JPEGs, 64 px (2 KB) and 256 px (12 KB), in the page cache; batches hold 64
uint8 images with flips and turns (``epochs``: and random crops) by one kernel for both sides, and both
bring the same batches, to the bit, as tensors of their own. All processes of both keep freed memory, as
training does. Started and warm are measured apart: processes are up before the clock runs;
``first-batch`` times the start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))  # a script finds its neighbours as the tests do: as jobs.benchmarks
os.environ.setdefault("OMP_NUM_THREADS", "1")  # cores are given out as processes, on both sides
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a Ray of our own, on loopback, for a few minutes
# Ray's processes find the neighbours, too
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))

import canopy  # noqa: E402, F401  (it sets what Ray reads when it is imported)

# isort: split
import tyro  # noqa: E402
from jobs.benchmarks.stream_costs import decode, memory, share  # noqa: E402
from jobs.benchmarks.stream_epochs import epochs, first_batch  # noqa: E402
from jobs.benchmarks.stream_gpu import gpu  # noqa: E402

from canopy.cli import run_job  # noqa: E402
from canopy.runtime.malloc import keep_freed_memory  # noqa: E402

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
    keep_freed_memory()  # as a training does; the rivals' processes inherit it
    return run_job(lambda words: tyro.extras.subcommand_cli_from_dict(COMMANDS, args=list(words)), argv)


if __name__ == "__main__":
    sys.exit(main())
