"""Unreadable images, counted over all ranks: real processes with gloo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from canopy.data.loading.unreadable import UnreadableImages
from canopy.errors import DataError

FOUND = ({3: "a: cut off", 7: "b: gone", 20: "c: empty"}, {7: "b: gone", 21: "d: empty", 30: "e: gone"})
"""Unreadable images of two ranks: five distinct ones, three on each rank."""


def one_rank(rank: int, folder: str, allowed: float) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    unreadable = UnreadableImages(100, allowed)
    unreadable.merge([FOUND[rank]])  # each rank alone is below the limit
    try:
        unreadable.gather()
        result = f"fine: {sorted(unreadable.reasons)}"
    except DataError as error:
        result = str(error)
    Path(folder, f"result-{rank}").write_text(result)
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("allowed", "result"),
    [
        (0.05, "fine: [3, 7, 20, 21, 30]"),
        (
            0.04,
            "but for 0.04 of all (data.max_bad_fraction). Got: 5 of 100 unreadable, first a: cut off",
        ),
    ],
)
def test_the_limit_counts_the_images_of_all_ranks(allowed: float, result: str, tmp_path: Path) -> None:
    start_processes(one_rank, (str(tmp_path), allowed), nprocs=2, start_method="forkserver")  # type: ignore[no-untyped-call]
    for rank in range(2):
        assert result in (tmp_path / f"result-{rank}").read_text()
