"""What the data benchmarks share: the chips, a Ray of their own, a meter of time and CPU, their table."""

from __future__ import annotations

import logging
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import ray
import torch
import tyro
from numpy.typing import NDArray

from canopy.config import AugmentConfig, GenerateConfig
from canopy.data.loading.batch_sampler import BatchSampler
from canopy.data.loading.chip_cache import ChipCache
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.decode_all import decode_all
from canopy.data.loading.uri_list import UriList
from canopy.data.synthetic.generate import generate
from canopy.runtime.cluster import quiet
from canopy.train.task import to_device

CORES = 2
"""What every contender may use: data tasks, loader processes, decoding processes."""
DISTINCT = {64: 4000, 256: 2000}
"""Number of chips rendered for each size; longer lists name them again, which costs a decoder the same."""
ROWS = {64: 100_000, 256: 16_000}
"""Images of an epoch: enough that what a start costs does not hide the rest, and that two decoded copies stay
in memory."""
BATCH = 64
FLIPS = AugmentConfig()
CPU = torch.device("cpu")
OWN_RAY = 4 << 30
CACHE_DIR = Path(tempfile.gettempdir()) / "canopy-benchmarks"


Sizes = Annotated[tuple[int, ...], tyro.conf.arg(help="chips' height and width: 64, 256 or both")]
Rows = Annotated[
    int | None, tyro.conf.arg(help="images of an epoch; None: 100,000 of 64 px, 16,000 of 256 px")
]


def batch_sampler_of(rows: int) -> BatchSampler:
    """The batches of a benchmark."""
    return BatchSampler(np.arange(rows), BATCH, seed=0)


def decoded_once(files: tuple[str, ...], size: int, *, fresh: bool = True) -> ChipSource:
    """All chips decoded once into a file that every process maps, as prepare and the training stage do it.

    Args:
        files: of the images.
        size: of the chips.
        fresh: into a new file, as they do; else into that of the last call, whose pages are in memory.
    """
    cache = ChipCache(str(CACHE_DIR / f"ours-{size}px.npy"))
    if fresh:
        cache.discard()
        cache.create(len(files), size)
    deque(decode_all(files, size, cache=cache, with_images=False), maxlen=0)
    return ChipSource(size, UriList(files), cache.building_path)


def epoch_files(size: int, rows: int | None) -> tuple[str, ...]:
    """The images of an epoch: ``rows``, or as many as are usual for their size."""
    return chip_files(size, ROWS[size] if rows is None else rows)


def chip_files(size: int, rows: int) -> tuple[str, ...]:
    """``rows`` paths of generated RGB JPEGs of ``size`` pixels; rendered on the first call, then kept."""
    config = GenerateConfig(rows=min(DISTINCT[size], rows), size=size, cmyk_fraction=0)
    root = CACHE_DIR / f"{size}px-{config.rows}"
    root.parent.mkdir(exist_ok=True)
    with get_context("forkserver").Pool(CORES) as pool:
        generate(config, root, pool.imap, block_rows=64)
    found = sorted(str(path) for path in (root / "train-jpg").glob("*.jpg"))
    assert len(found) == config.rows
    return tuple(found[n % len(found)] for n in range(rows))


@contextmanager
def private_ray(
    object_store_bytes: int, cpus: int = CORES, resources: dict[str, float] | None = None
) -> Iterator[None]:
    """A Ray of the benchmark's own on this machine, without a dashboard.

    Args:
        object_store_bytes: size of the object store.
        cpus: logical ones.
        resources: custom ones.
    """
    with tempfile.TemporaryDirectory(prefix="cray", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=cpus,
            resources=resources or None,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=object_store_bytes,
            _temp_dir=folder,
        )
        quiet()
        try:
            yield
        finally:
            ray.shutdown()


def delivered(batches: Iterator[dict[str, NDArray[Any]]]) -> int:
    """Take all batches as training does, each as a tensor of its own; the number of images."""
    return sum(len(to_device(batch["image"], CPU)) for batch in batches)
