"""Blocks of work as Ray tasks: in order, all CPUs at work, errors as they are, nothing left running."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from canopy.cli import canopy_error
from canopy.errors import DataError
from canopy.runtime.ray_tasks import at_once, cluster_cpus, map_blocks

pytestmark = pytest.mark.usefixtures("ray_here")


def test_results_come_in_order_though_later_blocks_end_sooner() -> None:
    def work(block: int) -> int:
        time.sleep(0.5 if block == 0 else 0)
        return block * block

    assert list(map_blocks(work, range(20))) == [n * n for n in range(20)]
    assert list(map_blocks(work, [])) == []
    assert sum(map_blocks(len, [range(0, 7), range(7, 9)])) == 9


def test_all_cpus_are_at_work() -> None:
    def work(_: int) -> tuple[float, float]:
        start = time.time()
        time.sleep(0.5)
        return start, time.time()

    cpus = int(cluster_cpus())
    list(map_blocks(work, range(cpus)))  # starts the processes
    spans = list(map_blocks(work, range(3 * cpus)))
    at_once = [sum(start <= begin < end for start, end in spans) for begin, _ in spans]
    assert max(at_once) == cpus
    assert max(end for _, end in spans) - min(start for start, _ in spans) < 2.5


def test_what_a_block_raises_arrives_as_it_is() -> None:
    def work(block: int) -> int:
        if block == 2:
            raise DataError("A block", "must be another", "2", "Take another.")
        return block

    results = map_blocks(work, range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(DataError) as caught:
        next(results)
    assert str(caught.value) == "A block must be another. Got: 2. Take another."


def test_an_error_of_another_kind_keeps_the_tasks_traceback() -> None:
    def work(block: int) -> float:
        return 1 / block

    with pytest.raises(ZeroDivisionError, match=r"return 1 / block") as caught:
        list(map_blocks(work, [0]))
    assert canopy_error(caught.value) is None


def test_only_a_few_blocks_are_begun_before_their_results_are_wanted(tmp_path: Path) -> None:
    """What they make waits in the object store; and when nobody wants it, the rest is called off."""

    def work(block: int) -> int:
        (tmp_path / str(block)).touch()
        return block

    results = map_blocks(work, range(1000))
    assert next(results) == 0
    time.sleep(1)
    begun = len(list(tmp_path.iterdir()))
    assert begun <= at_once()
    results.close()  # type: ignore[attr-defined]  # it is a generator
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) == begun
