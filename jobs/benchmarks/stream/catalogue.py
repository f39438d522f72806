"""Memory and time of reading the catalogue, which every process that trains does."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]  # a dependency of Ray
from jobs.benchmarks.measurement import Report, median_and_range

from canopy.data.catalogue import Catalogue
from canopy.labels import LabelSet

ROOT = Path(__file__).resolve().parents[3]
LABELS = 17
KEY = "s3://bucket/planet/train-jpg/{:07}.jpg"
"""Address of a row's image: 40 characters."""


def catalogue(rows: int = 500_000, repeats: int = 3, out: Path | None = None) -> None:
    """Memory and CPU time per row of ``Catalogue.read``, each time in a process of its own.

    Memory is what the process occupies more than before. Rows have an address of 40 characters, an id that is
    its name, three of 17 labels and a group of their own.

    Args:
        rows: number of rows.
        repeats: number of processes.
        out: file for the figures.
    """
    report = Report("catalogue", out)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "catalogue.parquet")
        written(rows).write(path)
        # `-m` runs this module as a program of its own.
        command = [sys.executable, "-m", "jobs.benchmarks.stream.catalogue", path]
        texts = [
            subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
            for _ in range(repeats)
        ]
    memory, time_ = zip(*(map(float, text.split()) for text in texts), strict=True)
    report.add_value("bytes per row", median_and_range(memory))
    report.add_value("µs of CPU per row", median_and_range(time_))
    report.show()


def written(rows: int) -> Catalogue:
    """A catalogue of ``rows`` rows."""
    uris = [KEY.format(number) for number in range(rows)]
    ids = [Path(uri).stem for uri in uris]
    targets_NK = np.zeros((rows, LABELS), np.uint8)
    for shift in range(3):
        targets_NK[np.arange(rows), (np.arange(rows) * 5 + shift) % LABELS] = 1
    split = np.where(np.arange(rows) % 5 == 0, "val", "train")
    fold = (np.arange(rows) % 5).astype(np.int8)
    labels = LabelSet(tuple(f"label {number}" for number in range(LABELS)))
    return Catalogue(ids, uris, targets_NK, split, fold, np.array(ids), labels)


def measure(path: str) -> None:
    """Print bytes and microseconds of CPU per row of reading ``path``."""
    process = psutil.Process()
    gc.collect()
    before, start = process.memory_info().rss, time.process_time()
    found = Catalogue.read(path)
    seconds = time.process_time() - start
    gc.collect()
    print((process.memory_info().rss - before) / len(found), seconds / len(found) * 1e6)


if __name__ == "__main__":
    measure(sys.argv[1])
