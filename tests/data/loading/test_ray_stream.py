"""Index streams on Ray Data: blocks, batches, concurrency, and their end."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray

from canopy.data.loading.ray_stream import (
    BLOCK_BYTES,
    BLOCK_ROWS,
    Batch,
    BatchStream,
    BlockStream,
    block_bytes,
    block_edges,
    rows_per_block,
)


@pytest.mark.parametrize(
    ("rows", "block_rows", "first_rows", "sizes"),
    [
        (10, 4, 4, [4, 4, 2]),
        (20, 8, 1, [1, 2, 4, 8, 5]),  # a small first block, then doubling
        (3, 8, 8, [3]),
        (9, 4, 16, [4, 4, 1]),
        (8, 4, 4, [4, 4]),
    ],
)
def test_blocks_begin_small_and_hold_every_row(
    rows: int, block_rows: int, first_rows: int, sizes: list[int]
) -> None:
    parts = np.split(np.arange(rows), block_edges(rows, block_rows, first_rows))
    assert [len(part) for part in parts] == sizes
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(rows))


@pytest.mark.parametrize("room", [BLOCK_BYTES, 10 << 20])
@pytest.mark.parametrize(("size", "batch"), [(16, 64), (64, 100), (256, 64), (512, 96), (1024, 1)])
def test_a_block_holds_whole_batches_within_its_bounds(size: int, batch: int, room: int) -> None:
    rows = rows_per_block(size * size * 3, batch, room)
    assert rows % batch == 0
    assert rows == batch or (rows <= BLOCK_ROWS and rows * size * size * 3 <= room)
    assert rows + batch > min(BLOCK_ROWS, room // (size * size * 3))


@pytest.mark.usefixtures("ray_here")
def test_blocks_leave_room_in_the_object_store() -> None:
    store = ray.cluster_resources()["object_store_memory"]  # type: ignore[no-untyped-call]
    assert 0 < block_bytes() <= min(BLOCK_BYTES, store / 16)


def squares(batch: Batch) -> Batch:
    return {"row": batch["id"], "square": batch["id"] ** 2}


@pytest.mark.usefixtures("ray_here")
def test_batches_are_slices_of_blocks_in_order() -> None:
    stream = BatchStream(BlockStream(50, 12, squares, num_cpus=0.25, concurrency=3, ramp=6), 6)
    batches = list(stream)
    assert [len(batch["row"]) for batch in batches] == [6] * 8 + [2]
    np.testing.assert_array_equal(np.concatenate([b["square"] for b in batches]), np.arange(50) ** 2)
    stats = stream.stats()
    assert "MapBatches" in stats
    assert "5 tasks executed" in stats  # 6, 12, 12, 12 and 8 rows
    assert list(BlockStream(0, 12, squares, num_cpus=0.25)) == []


class Heavy:
    """A large object of a task that counts its copies."""

    copies = 0

    def __deepcopy__(self, memo: dict[int, object]) -> Heavy:
        Heavy.copies += 1
        return self


@dataclass(frozen=True)
class Holding:
    heavy: Heavy

    def __call__(self, batch: Batch) -> Batch:
        return squares(batch)


@pytest.mark.usefixtures("ray_here")
def test_the_fields_of_a_task_are_not_copied() -> None:
    stream = BlockStream(4, 4, Holding(Heavy()), num_cpus=0.25)
    assert [len(block["row"]) for block in stream] == [4]
    assert Heavy.copies == 0
    assert "Holding" in stream.stats()


@pytest.mark.usefixtures("ray_here")
def test_batches_are_completed_by_their_number() -> None:
    blocks = BlockStream(10, 6, squares, num_cpus=0.25)
    stream = BatchStream(blocks, 3, lambda n, batch: {**batch, "number": np.full(len(batch["row"]), n)})
    assert np.concatenate([batch["number"] for batch in stream]).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


TASK_S = 0.9


def waits(batch: Batch) -> Batch:
    start = time.time()
    time.sleep(TASK_S)
    return {"start": np.array([start]), "end": np.array([time.time()])}


@pytest.mark.usefixtures("ray_here")
def test_all_tasks_run_concurrently_from_the_beginning() -> None:
    tasks = 3
    for _ in range(2):  # the first pass starts the processes
        blocks = list(BlockStream(2 * tasks, 1, waits, num_cpus=0.25, concurrency=tasks))
    starts, ends = (np.sort([block[name][0] for block in blocks]) for name in ("start", "end"))
    assert starts[1] < ends[0], "Ray Data knew no CPUs and ran one task alone"
    assert starts[tasks - 1] < ends[0]


@pytest.mark.usefixtures("ray_here")
def test_the_tasks_of_a_dropped_stream_run_to_their_end(tmp_path: Path) -> None:
    """Ray Data would cancel them, which can abort the process, and end their worker processes."""

    def work(batch: Batch) -> Batch:
        name = str(batch["id"][0])
        (tmp_path / f"{name}.begun").touch()
        time.sleep(0.5)
        (tmp_path / f"{name}.ended").touch()
        return {"row": batch["id"]}

    stream = BlockStream(1000, 1, work, num_cpus=0.25, concurrency=4)
    assert next(stream)["row"].tolist() == [0]
    del stream

    def marked(kind: str) -> set[str]:
        return {path.stem for path in tmp_path.glob(f"*.{kind}")}

    begun, end = marked("begun"), time.monotonic() + 60
    while True:  # until no task has begun for two seconds, and all have ended
        time.sleep(2)
        before, begun = begun, marked("begun")
        if begun == before == marked("ended"):
            break
        assert time.monotonic() < end, (begun, marked("ended"))
    assert 1 < len(begun) < 40, "nothing is submitted after the end"


EARLY_ENDS = """
import random
import sys
import time

import numpy as np
import ray
from canopy.data.loading.ray_stream import BatchStream, BlockStream

def work(batch):
    time.sleep(0.001 * (int(batch["id"][0]) % 5))
    return {"row": batch["id"], "image": np.zeros((len(batch["id"]), 8, 8, 3), np.uint8)}

if __name__ == "__main__":
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    generator = random.Random(0)
    for count in range(int(sys.argv[1])):
        stream = BatchStream(BlockStream(400, 4, work, 0.25, 6, ramp=1), 1)
        for row in range(generator.randrange(1, 60)):
            assert next(stream)["row"].tolist() == [row]
        del stream
    print(count + 1)
"""


@pytest.mark.slow
def test_two_hundred_streams_end_early(tmp_path: Path) -> None:
    """In a process of their own, which Ray would abort."""
    (tmp_path / "driver.py").write_text(EARLY_ENDS)
    command = [sys.executable, str(tmp_path / "driver.py"), "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "200"
