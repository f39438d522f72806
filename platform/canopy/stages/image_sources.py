"""Where the images of a run come from: a directory or a URI, the generator, shards of samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from canopy.config import SHARD_SOURCES, Experiment, fingerprint
from canopy.data.listing import Listing
from canopy.data.shards import Shard, unpack_shards
from canopy.data.sources import is_in_folders, list_images
from canopy.data.synthetic.generate import generate
from canopy.errors import ConfigError
from canopy.runtime.console import Console
from canopy.runtime.ray_tasks import map_blocks
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir


def data_root(config: Experiment, run_dir: RunDir) -> str:
    """Directory or URI of the images.

    Raises:
        ConfigError: when the source needs ``data.root`` and it is not set.
    """
    if config.data.root is not None:
        return files.absolute(config.data.root)
    if config.data.source != "generated":
        table = "" if is_in_folders(config.data) else f"{config.data.csv} and "
        need = f"must name the directory that holds {table}{config.data.images}/"
        if config.data.source in SHARD_SOURCES:
            need = "must name the directory that holds the shards"
        raise ConfigError("data.root", need, None, "Give --data.root DIR.")
    if files.is_uri(run_dir.root):
        need = "must name a directory for the generated chips when the run directory is a URI"
        raise ConfigError("data.root", need, None, "Give --data.root with a directory that all nodes share.")
    return run_dir.path("data")


def make_chips(config: Experiment, root: str, console: Console) -> None:
    """Generate the built-in data set where it is missing.

    Raises:
        DataError: when the directory holds another data set.
        ClusterError: when Ray tasks cannot run.
    """
    total, since, done = config.data.generate.rows, time.monotonic(), 0

    def in_parallel(work: Callable[[range], int], ranges: list[range]) -> Iterator[int]:
        nonlocal done
        for rows in map_blocks(work, ranges):
            done += rows
            console.count(Stage.PREPARE, "chips generated", done, total, since)
            yield rows

    generate(config.data.generate, Path(root), in_parallel)


def list_source(config: Experiment, root: str, run_dir: RunDir, console: Console) -> Listing:
    """List the images of the source; those in shards are written as files into the run directory first.

    Raises:
        DataError: when the data set cannot be used.
        RunDirError: when the run directory holds the images of other shards.
        StorageError: when a store refuses.
    """
    if config.data.source not in SHARD_SOURCES:
        return list_images(config.data, root)

    def in_parallel(work: Callable[[Shard], pa.Table], shards: Sequence[Shard]) -> Iterator[pa.Table]:
        console.say(Stage.PREPARE, f"{len(shards):,} shards; writing their images once")
        since = time.monotonic()
        for done, table in enumerate(map_blocks(work, shards), 1):
            console.count(Stage.PREPARE, "shards read", done, len(shards), since)
            yield table

    out = run_dir.path("data")
    digest = unpack_shards(config.data, root, out, in_parallel, claimed=run_dir.claimed)
    listing = list_images(config.data, out)
    # The images were written here: the shards say whether the data set is another.
    return replace(listing, identity=fingerprint(listing.identity, digest), former_identity="")
