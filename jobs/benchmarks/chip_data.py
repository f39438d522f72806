"""Shared parts of the data benchmarks: generated chips, batches, a private Ray."""

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
from canopy.data.loading.decode_blocks import decode_blocks
from canopy.data.loading.uri_list import UriList
from canopy.data.synthetic.generate import generate
from canopy.runtime.cluster import quiet
from canopy.train.training_phase import to_device

CORES = 2
"""Cores that each contender may use: number of data tasks, loader processes or decoding processes."""
DISTINCT = {64: 4000, 256: 2000}
"""Number of chips rendered for each size. Longer lists repeat files, which cost as much to decode."""
ROWS = {64: 100_000, 256: 16_000}
"""Images in an epoch for each size: enough to outweigh start-up; two decoded copies still fit in memory."""
BATCH = 64
"""Images in a batch."""
FLIPS = AugmentConfig()
CPU = torch.device("cpu")
STORE_BYTES = 4 << 30
"""Bytes of the object store of a private Ray."""
CACHE_DIR = Path(tempfile.gettempdir()) / "canopy-benchmarks"


Sizes = Annotated[
    tuple[int, ...], tyro.conf.arg(help="height and width of the chips in pixels: 64, 256 or both")
]
Rows = Annotated[
    int | None, tyro.conf.arg(help="images in an epoch; None: 100,000 for 64 px, 16,000 for 256 px")
]


def make_batch_sampler(rows: int) -> BatchSampler:
    """The batch sampler of a benchmark over ``rows`` images."""
    return BatchSampler(np.arange(rows), BATCH, seed=0)


def decode_to_cache(files: tuple[str, ...], size: int, *, fresh: bool = True) -> ChipSource:
    """Decode all images once into a file that every process maps, as the prepare and train stages do.

    Args:
        files: paths of the images.
        size: height and width of the chips in pixels.
        fresh: True creates a new file, as the stages do; False writes again to the file of the last call,
            whose pages are in memory.
    """
    cache = ChipCache(str(CACHE_DIR / f"ours-{size}px.npy"))
    if fresh:
        cache.discard()
        cache.create(len(files), size)
    deque(decode_blocks(files, size, cache=cache, with_images=False), maxlen=0)
    return ChipSource(size, UriList(files), cache.building_path)


def epoch_files(size: int, rows: int | None) -> tuple[str, ...]:
    """Paths of the images of an epoch: ``rows``, or for None the number in :data:`ROWS`."""
    return chip_files(size, ROWS[size] if rows is None else rows)


def chip_files(size: int, rows: int) -> tuple[str, ...]:
    """Return ``rows`` paths of generated RGB JPEGs of ``size`` pixels. The first call renders them."""
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
    """Run a private Ray on this machine, without a dashboard, until the context ends.

    Args:
        object_store_bytes: size of the object store.
        cpus: number of logical CPUs.
        resources: amounts of custom resources by name.
    """
    with tempfile.TemporaryDirectory(prefix="cray", ignore_cleanup_errors=True) as folder:
        ray.init(
            "local",
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


def count_images(batches: Iterator[dict[str, NDArray[Any]]]) -> int:
    """Consume all batches as training does, each as a new tensor; return the number of images."""
    return sum(len(to_device(batch["image"], CPU)) for batch in batches)
