"""The directory of a batch job: ranges, shards, what belongs to another job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from canopy.errors import ConfigError
from canopy.inference.shards import (
    BatchJob,
    ShardDirectory,
    bad_table,
    parquet_bytes,
    part_name,
    rows_per_shard,
)

JOB = BatchJob(model="a" * 64, images=70, images_digest="b" * 64, rows_per_shard=32)


def part(*ids: str) -> bytes:
    return parquet_bytes(pa.table({"id": list(ids)}))


def test_shards_hold_every_image_once() -> None:
    rows = [row for shard in range(JOB.shards) for row in JOB.rows(shard)]
    assert rows == list(range(70))
    assert [len(JOB.rows(shard)) for shard in range(JOB.shards)] == [32, 32, 6]


@pytest.mark.parametrize(("size", "rows"), [(8, 2048), (64, 2048), (256, 320), (1024, 32)])
def test_a_shard_is_one_block_of_chips(size: int, rows: int) -> None:
    assert rows_per_shard(size) == rows
    assert rows * size * size * 3 <= 112 << 20, "Ray Data splits blocks of more than 128 MiB"


def test_what_is_missing_is_what_is_not_written(tmp_path: Path) -> None:
    directory = ShardDirectory(str(tmp_path / "out"), JOB)
    directory.open("--out")
    assert directory.missing() == [0, 1, 2]
    directory.write(1, part("b", "c"), parquet_bytes(bad_table(["x"], ["empty"])))
    directory.write(2, part("d"), b"")
    assert directory.missing() == [0]
    assert directory.bad().to_pylist() == [{"id": "x", "problem": "empty"}]
    directory.write(0, part("a"), b"")
    (tmp_path / "out" / ".0123456789ab.part").write_bytes(b"half")
    assert not directory.finished
    directory.finish(4, 1)
    assert directory.finished
    assert directory.gather()["id"].to_pylist() == ["a", "b", "c", "d"]
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == ["a", "b", "c", "d"], "_bad is passed over"
    assert not list((tmp_path / "out").glob(".*"))
    directory.remove()
    assert not (tmp_path / "out").exists()


def test_bad_images_of_an_unfinished_shard_do_not_count(tmp_path: Path) -> None:
    directory = ShardDirectory(str(tmp_path), JOB)
    directory.open("--out")
    directory.write(0, part("a"), parquet_bytes(bad_table(["x"], ["empty"])))
    (tmp_path / part_name(0)).unlink()
    assert directory.bad().num_rows == 0
    assert 0 in directory.missing()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (replace(JOB, model="c" * 64), "another model than"),
        (replace(JOB, images_digest="c" * 64), "another images digest than"),
        (replace(JOB, options=("embeddings True",)), "another options than"),
    ],
)
def test_the_directory_of_another_job_is_refused(other: BatchJob, said: str, tmp_path: Path) -> None:
    ShardDirectory(str(tmp_path), JOB).open("--out")
    ShardDirectory(str(tmp_path), JOB).open("--out")
    with pytest.raises(ConfigError, match=said):
        ShardDirectory(str(tmp_path), other).open("--out")


def test_a_directory_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=r"must be empty or new. Got: .*which holds notes\.txt"):
        ShardDirectory(str(tmp_path), JOB).open("--out")
    (tmp_path / "_job.json").write_text("{")
    with pytest.raises(ConfigError, match=r"must hold a readable _job\.json"):
        ShardDirectory(str(tmp_path), JOB).open("--out")
