"""The pipeline of batch inference: its workplace, its limits, images that end their process."""

from __future__ import annotations

import pyarrow as pa
import pytest

from canopy.errors import DataError
from canopy.inference import batch
from canopy.inference.batch import Tally, Workplace, refuse_bad


def test_as_many_unreadable_images_as_allowed_are_let_through() -> None:
    bad = Tally(200, 2, "a.png\0the file is empty")
    refuse_bad(bad, 200, 0.01)
    refuse_bad(Tally(200, 0), 200, 0.0)
    need = r"Image a\.png must be readable \(at most 1\.0% of 199 may not be\)\. Got: the file is empty"
    with pytest.raises(DataError, match=need):
        refuse_bad(bad, 199, 0.01)


@pytest.mark.parametrize(
    ("resources", "shards", "gpus", "cpus", "expected"),
    [
        ({"CPU": 8.0}, 100, None, 1, Workplace(8, 0.0, 1)),
        ({"CPU": 8.0}, 100, None, 3, Workplace(2, 0.0, 3)),
        ({"CPU": 8.0}, 3, None, 1, Workplace(3, 0.0, 1)),
        ({"CPU": 2.0}, 100, None, 4, Workplace(1, 0.0, 4)),
        ({"CPU": 8.0, "GPU": 2.0}, 100, None, 1, Workplace(2, 1.0, 1)),
        ({"CPU": 8.0, "GPU": 2.0}, 100, 0.5, 1, Workplace(4, 0.5, 1)),
        ({"CPU": 8.0, "GPU": 2.0}, 100, 0.0, 1, Workplace(8, 0.0, 1)),
        ({"CPU": 8.0}, 100, 1.0, 1, Workplace(1, 1.0, 1)),  # an autoscaler may bring a GPU
    ],
)
def test_networks_run_on_gpus_where_there_are_any(
    resources: dict[str, float],
    shards: int,
    gpus: float | None,
    cpus: int,
    expected: Workplace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch.ray, "cluster_resources", lambda: resources)
    monkeypatch.setattr(batch, "cluster_cpus", lambda: resources["CPU"])
    assert Workplace.of_cluster(shards, gpus, cpus) == expected


def test_the_first_unreadable_image_is_that_of_the_lowest_shard() -> None:
    table = pa.table({"id": ["a", "b"], "problem": ["empty", "gone"]})
    assert batch._first_bad(table) == "a\0empty"
    assert batch._first_bad(table.slice(2)) == ""
