"""The output directory of a batch job: one shard per range of images, each written once and atomically.

::

    OUT/
      _job.json                what is predicted, and by which model; a later start must want the same
      part-000000.parquet      predictions of the readable images of the first range, ordered by id
      _bad/part-000000.parquet ids and problems of its unreadable images, where it has any
      _autotune.json           how the networks are executed, in a large job
      _done.json               numbers of images; written last

Ranges are a pure function of the sorted ids and of ``rows_per_shard``, so that a job which was interrupted
leaves exactly the files that one without an interruption leaves. Readers of Parquet directories pass over
names that begin with an underscore.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from canopy.errors import ConfigError, InputError
from canopy.storage import files

FORMAT = "canopy-predictions/1"
JOB, DONE, BAD = "_job.json", "_done.json", "_bad"
EXECUTION = "_autotune.json"
SHARD_BYTES = 64 << 20
"""Largest size of a shard's decoded chips, bytes; they are one block of Ray Data."""
MAX_ROWS, MIN_ROWS = 2048, 32
"""Limits of the images in a shard."""
BAD_SCHEMA = pa.schema([("id", pa.string()), ("problem", pa.string())])
LEFT_OVER = re.compile(r"\.[0-9a-f]{12}\.part")
"""Temporary files of :func:`canopy.storage.local_files.write_atomically`."""
PART = re.compile(r"part-(\d{6})\.parquet")


@dataclass(frozen=True)
class BatchJob:
    """The content of ``_job.json``: everything that the shards depend on.

    Args:
        model: 64 hex digits over the model's ensemble and weights.
        images: number of images.
        images_digest: 64 hex digits over their ids, sizes and addresses.
        rows_per_shard: images in a shard; the last one has the rest.
        options: further choices that change the content, such as the precision.
        format: version of the directory.
    """

    model: str
    images: int
    images_digest: str
    rows_per_shard: int
    options: tuple[str, ...] = ()
    format: str = FORMAT

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.images // self.rows_per_shard)

    def rows(self, shard: int) -> range:
        """Numbers of the images of a shard, among the sorted ids."""
        return range(shard * self.rows_per_shard, min(self.images, (shard + 1) * self.rows_per_shard))


def rows_per_shard(image_size: int) -> int:
    """Images in a shard, for chips of ``image_size`` pixels a side: a multiple of 32."""
    fitting = SHARD_BYTES // (3 * image_size**2)
    return max(MIN_ROWS, min(MAX_ROWS, fitting) // MIN_ROWS * MIN_ROWS)


@dataclass(frozen=True)
class ShardDirectory:
    """The directory of a job's shards.

    Args:
        root: path or URI.
        job: what is predicted.
    """

    root: str
    job: BatchJob

    def open(self, option: str) -> None:
        """Write ``_job.json``, or check that the one that is there is of the same job.

        Args:
            option: name of the option that gave the directory, for the error message.

        Raises:
            ConfigError: when the directory holds something else.
            StorageError: when it cannot be written.
        """
        wanted = {**asdict(self.job), "options": list(self.job.options)}
        path = files.join(self.root, JOB)
        if not files.exists(path):
            found = [] if not files.exists(self.root) else list(files.list_files(self.root))
            if found:
                got = f"{files.shown(self.root)}, which holds {found[0]}"
                raise ConfigError(option, "must be empty or new", got, "Choose another directory.")
            files.write_json(path, wanted)
            return
        try:
            known = files.read_json(path)
        except InputError as error:
            raise ConfigError(
                option, f"must hold a readable {JOB}", error.got, "Delete the directory, or choose another."
            ) from None
        if not isinstance(known, dict) or known != wanted:
            stored = known if isinstance(known, dict) else {}
            differs = next((name for name, value in wanted.items() if stored.get(name) != value), "a field")
            need = "must be of the same model, images and options as the predictions that it holds"
            got = f"another {differs.replace('_', ' ')} than in {files.shown(path)}"
            raise ConfigError(option, need, got, "Choose another place, or delete that one.")

    def missing(self) -> list[int]:
        """Numbers of the shards that are not written yet."""
        present = self._written("")
        return [shard for shard in range(self.job.shards) if shard not in present]

    def _written(self, part: str) -> set[int]:
        """Numbers of the shards in the directory, or in its subdirectory ``part``."""
        directory = files.join(self.root, part) if part else self.root
        names = files.list_files(directory) if files.exists(directory) else {}
        return {int(match[1]) for match in map(PART.fullmatch, names) if match}

    def bad(self) -> pa.Table:
        """Ids and problems of the unreadable images in all shards that are written now."""
        shards = sorted(self._written(BAD) & self._written(""))
        tables = [files.read_table(files.join(self.root, BAD, part_name(shard))) for shard in shards]
        return pa.concat_tables([BAD_SCHEMA.empty_table(), *tables])

    def write(self, shard: int, predictions: bytes, bad: bytes) -> None:
        """Write one shard; its predictions come last and mark it as finished.

        Args:
            shard: its number.
            predictions: a Parquet file.
            bad: a Parquet file; empty where every image was readable.

        Raises:
            StorageError: when the object store refuses, or the disk is full or fails.
        """
        if bad:
            files.write_bytes(files.join(self.root, BAD, part_name(shard)), bad)
        files.write_bytes(files.join(self.root, part_name(shard)), predictions)

    def finish(self, images: int, bad: int) -> None:
        """Write ``_done.json``: the job is complete. What a killed process left half-written is deleted."""
        for directory in (self.root, files.join(self.root, BAD)):
            for name in files.list_files(directory) if files.exists(directory) else ():
                if LEFT_OVER.fullmatch(name):
                    files.delete(files.join(directory, name))
        files.write_json(files.join(self.root, DONE), {"images": images, "unreadable": bad})

    @property
    def execution_path(self) -> str:
        """Path of the settings that the networks are executed with; there is none in a small job."""
        return files.join(self.root, EXECUTION)

    @property
    def finished(self) -> bool:
        """Whether ``_done.json`` is there."""
        return files.exists(files.join(self.root, DONE))

    def gather(self) -> pa.Table:
        """The predictions of all shards, ordered by id."""
        shards = range(self.job.shards)
        return pa.concat_tables([files.read_table(files.join(self.root, part_name(n))) for n in shards])

    def remove(self) -> None:
        """Delete all files of the job, and its directory where nothing else is in it."""
        bad = files.join(self.root, BAD)
        for directory in (bad, self.root):
            for name in files.list_files(directory) if files.exists(directory) else ():
                if PART.fullmatch(name):
                    files.delete(files.join(directory, name))
        for name in (DONE, EXECUTION, JOB):
            files.delete(files.join(self.root, name))
        for directory in (bad, self.root):
            files.delete_empty_directory(directory)


def part_name(shard: int) -> str:
    """File name of a shard."""
    return f"part-{shard:06}.parquet"


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def bad_table(ids: Sequence[str], problems: Sequence[str]) -> pa.Table:
    """The table of unreadable images."""
    columns = [pa.array(list(ids), pa.string()), pa.array(list(problems), pa.string())]
    return pa.table(columns, schema=BAD_SCHEMA)
