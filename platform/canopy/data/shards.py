"""Data sets in shards become image files and a table, written once; from there they are a source like others.

A shard is read by one task, a sample at a time. Decoding, retries, on-demand reading and reports all read
single files, which a Parquet file does not have::

    OUT/images/00003-train-0003/000017.jpg    the 18th sample of the 4th shard
    OUT/samples.parquet                       id, file, labels, split, group, where, problem
    OUT/shards.json                           written last: what the files were made of
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import pyarrow as pa

from canopy.config import DataConfig, ShardsConfig, fingerprint
from canopy.data.label_cells import refuse_doubtful_names
from canopy.data.label_table import SPLIT_NAMES, Entry
from canopy.data.listing import MB, is_hidden
from canopy.data.parquet_shard import read_parquet
from canopy.data.webdataset_shard import read_webdataset
from canopy.errors import DataError, RunDirError
from canopy.storage import files

IMAGES, TABLE, MARKER = "images", "samples.parquet", "shards.json"
SUFFIXES = {"webdataset": (".tar", ".tar.gz", ".tgz"), "huggingface": (".parquet",)}
SPLIT = re.compile(rf"({'|'.join(sorted(filter(None, SPLIT_NAMES), key=len, reverse=True))})(?![a-z])", re.I)
"""The split at the beginning of a name: ``train-00000-of-00002.parquet``, ``val_3.tar``."""
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("file", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("split", pa.string()),
        ("group", pa.string()),
        ("where", pa.string()),
        ("problem", pa.string()),
    ]
)


class Shard(NamedTuple):
    """A shard of a data set.

    Attributes:
        number: its number, from 0 on.
        name: its path in the data set.
        split: train, val, test, or empty.
    """

    number: int
    name: str
    split: str


@dataclass(frozen=True)
class Unpacker:
    """Task: writes the images of a shard and returns its rows of the table.

    Args:
        root: directory or URI of the shards.
        out: directory or URI to write to.
        source: ``webdataset`` or ``huggingface``.
        config: members or columns of a sample.
        max_bytes: largest image.
    """

    root: str
    out: str
    source: str
    config: ShardsConfig
    max_bytes: int

    def __call__(self, shard: Shard) -> pa.Table:
        """The rows of a shard.

        Raises:
            DataError: when the shard is damaged, or a column is missing.
            StorageError: when a store refuses.
        """
        read = read_webdataset if self.source == "webdataset" else read_parquet
        suffix = next(end for end in SUFFIXES[self.source] if shard.name.lower().endswith(end))
        stem = shard.name[: -len(suffix)]
        folder = f"{shard.number:05}-{re.sub(r'[^A-Za-z0-9_-]', '-', stem.rpartition('/')[2])}"
        rows = []
        for n, sample in enumerate(read(files.join(self.root, shard.name), self.config, self.max_bytes)):
            file = f"{folder}/{n:06}{sample.ending}"
            if not sample.problem:
                files.write_bytes(files.join(self.out, IMAGES, file), sample.image)
            where = f"{shard.name}, {sample.place}"
            name = sample.id or f"{stem}/{sample.place.removeprefix('row ')}"
            rows.append((name, file, sample.labels, shard.split, sample.group, where, sample.problem))
        columns = zip(*rows, strict=True) if rows else ((),) * len(SCHEMA)
        arrays = [pa.array(column, kind.type) for column, kind in zip(columns, SCHEMA, strict=True)]
        return pa.table(dict(zip(SCHEMA.names, arrays, strict=True)), SCHEMA)


def find_shards(root: str, source: str, splits: bool) -> list[Shard]:
    """The shards of a directory, at any depth, in the order of their names.

    Raises:
        DataError: when there is none.
        StorageError: when the object store refuses.
    """
    suffixes = SUFFIXES[source]
    found = [
        name
        for name in (files.list_files(root, recursive=True) if files.is_dir(root) else ())
        if name.lower().endswith(suffixes) and not is_hidden(name)
    ]
    if not found:
        need, remedy = f"must hold shards ({', '.join(suffixes)})", "Give --data.root DIR or URI."
        raise DataError("data.root", need, f"none in {files.shown(root)}", remedy)
    return [Shard(n, name, split_of(name) if splits else "") for n, name in enumerate(found)]


def split_of(name: str) -> str:
    """The split that a shard's path names: at the beginning of its name, else of its nearest folder."""
    for part in reversed(name.split("/")):
        if (match := SPLIT.match(part)) is not None:
            return SPLIT_NAMES[match[1].lower()]
    return ""


def unpack_shards(
    config: DataConfig,
    root: str,
    out: str,
    in_parallel: Callable[[Callable[[Shard], pa.Table], Sequence[Shard]], Iterator[pa.Table]],
    *,
    claimed: bool = False,
) -> str:
    """Write the images and the table of a data set, unless ``out`` holds those of these very shards.

    Args:
        config: the data section.
        root: directory or URI of the shards.
        out: directory or URI to write to.
        in_parallel: maps a task over shards, in order.
        claimed: whether a run belongs to what ``out`` holds: it is not written over with another data set.

    Returns:
        64 hex digits over names, sizes and times of change of the shards, and over their settings.

    Raises:
        DataError: when there is no shard, one is damaged, a column is missing or no sample is there.
        RunDirError: when ``out`` is claimed and holds another data set.
        StorageError: when a store refuses.
    """
    shards = find_shards(root, config.source, config.shards.splits)
    states = files.list_states(root, recursive=True)
    known = [(shard.name, *states[shard.name]) for shard in shards]
    digest, max_bytes = fingerprint(config.source, config.shards, known), int(config.max_image_mb * MB)
    marker, content = files.join(out, MARKER), {"digest": digest, "max_bytes": max_bytes}
    if files.exists(marker):
        known_content = files.read_json(marker)
        if known_content == content:
            return digest
        if claimed and known_content["digest"] != digest:
            thing, got = files.shown(out), "other shards or data.shards, or shards that changed since"
            need = "must hold the images of the shards that this run was made from"
            raise RunDirError(thing, need, got, "Choose another --run-dir, or delete this one.")
        files.delete(marker)
    tables = list(in_parallel(Unpacker(root, out, config.source, config.shards, max_bytes), shards))
    table = pa.concat_tables(tables)
    if not table.num_rows:
        got = f"{len(shards)} shards without one"
        raise DataError("data.root", "must hold a sample", got, "Check the shards in it.")
    files.write_table(files.join(out, TABLE), table)
    files.write_json(marker, content)
    return digest


def read_samples(out: str, known: Container[str] = ()) -> tuple[list[Entry], dict[str, str]]:
    """The samples that :func:`unpack_shards` wrote, and a reason by id for those that cannot be used.

    Args:
        out: directory or URI that it wrote to.
        known: label names that are right whatever characters they hold (``data.labels``).

    Raises:
        DataError: when a label is probably several, or a missing value.
    """
    entries, strays = [], {}
    table = files.read_table(files.join(out, TABLE))
    for row in chain.from_iterable(batch.to_pylist() for batch in table.to_batches(10_000)):
        if row["problem"]:
            strays[row["id"]] = f"{row['problem']} ({row['where']})"
            continue
        entries.append(
            Entry(row["id"], tuple(row["labels"]), row["file"], row["split"], row["group"], row["where"])
        )
    try:
        refuse_doubtful_names("", "", [(entry.where, entry.tags) for entry in entries], ",", known)
    except DataError as error:
        need = "must hold labels in lists, or between commas or lines"
        remedy = "Correct the shards; if that is one name, list all label names in data.labels."
        raise DataError("data.root", need, error.got, remedy) from None
    return entries, strays
