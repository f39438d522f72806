"""Unreadable images, counted over all ranks: real processes with gloo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
            "except 0.04 of all (data.max_bad_fraction). Got: 5 of 100 unreadable, first a: cut off",
        ),
    ],
)
def test_the_limit_counts_the_images_of_all_ranks(allowed: float, result: str, tmp_path: Path) -> None:
    start_processes(one_rank, (str(tmp_path), allowed), nprocs=2, start_method="forkserver")  # type: ignore[no-untyped-call]
    for rank in range(2):
        assert result in (tmp_path / f"result-{rank}").read_text()


def test_each_unreadable_image_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    unreadable = UnreadableImages(100, 0.5)
    problems = np.array(["", "b.jpg: the file is empty"], dtype=object)
    batch = {"row": np.array([4, 4]), "wanted": np.array([4, 7]), "problem": problems}
    with caplog.at_level("WARNING", logger="canopy"):
        unreadable.record(batch)
        unreadable.record(batch)
    assert [record.getMessage() for record in caplog.records] == [
        "unreadable image: b.jpg: the file is empty"
    ]
    assert unreadable.reasons == {7: "b.jpg: the file is empty"}


def test_unreadable_images_that_are_scored_get_the_label_rates() -> None:
    unreadable = UnreadableImages(100, 0.5)
    problems = np.array(["", "b.jpg: the file is empty"], dtype=object)
    unreadable.record({"row": np.array([4, 7]), "problem": problems}, scoring=True)
    logits_nK = np.full((2, 2), 3, np.float32)
    unreadable.fill_logits(np.array([4, 7]), logits_nK, np.array([0.5, 0.0]))
    np.testing.assert_allclose(logits_nK, [[3, 3], [0, np.log(1e-6 / (1 - 1e-6))]], rtol=1e-6)
    readable = np.array(["", ""], dtype=object)
    unreadable.record({"row": np.array([4, 7]), "problem": readable}, scoring=True)
    logits_nK[:] = 3
    unreadable.fill_logits(np.array([4, 7]), logits_nK, np.array([0.5, 0.0]))
    assert (logits_nK == 3).all(), "the image can be read again"
