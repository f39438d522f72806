"""How index streams are cut into blocks and batches."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pytest
import ray

from canopy.data.loading.ray_dataset import (
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
        (20, 8, 1, [1, 2, 4, 8, 5]),  # the first soon, then ever larger
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
    rows = rows_per_block(size, batch, room)
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
def test_batches_are_cut_out_of_blocks_in_order() -> None:
    stream = BatchStream(BlockStream(50, 12, squares, num_cpus=0.25, concurrency=3, ramp=6), 6)
    batches = list(stream)
    assert [len(batch["row"]) for batch in batches] == [6] * 8 + [2]
    np.testing.assert_array_equal(np.concatenate([b["square"] for b in batches]), np.arange(50) ** 2)
    told = stream.stats()
    assert "MapBatches" in told
    assert "5 tasks executed" in told  # 6, 12, 12, 12 and 8 rows
    assert list(BlockStream(0, 12, squares, num_cpus=0.25)) == []


class Heavy:
    """Something large that a task holds; knows whether it was copied."""

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
def test_what_a_task_holds_is_not_copied_to_describe_it() -> None:
    stream = BlockStream(4, 4, Holding(Heavy()), num_cpus=0.25)
    assert [len(block["row"]) for block in stream] == [4]
    assert Heavy.copies == 0
    assert "Holding" in stream.stats()


@pytest.mark.usefixtures("ray_here")
def test_batches_are_made_whole_by_their_number() -> None:
    blocks = BlockStream(10, 6, squares, num_cpus=0.25)
    stream = BatchStream(blocks, 3, lambda n, batch: {**batch, "number": np.full(len(batch["row"]), n)})
    assert np.concatenate([batch["number"] for batch in stream]).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


TASK_S = 0.9


def waits(batch: Batch) -> Batch:
    start = time.time()
    time.sleep(TASK_S)
    return {"start": np.array([start]), "end": np.array([time.time()])}


@pytest.mark.usefixtures("ray_here")
def test_all_tasks_that_fit_run_at_once_from_the_beginning() -> None:
    tasks = 3
    for _ in range(2):  # the first starts the processes
        blocks = list(BlockStream(2 * tasks, 1, waits, num_cpus=0.25, concurrency=tasks))
    starts, ends = (np.sort([block[name][0] for block in blocks]) for name in ("start", "end"))
    assert starts[1] < ends[0], "Ray Data knew of no CPUs, and let one task run alone"
    assert starts[tasks - 1] < ends[0]
