"""A model's replica without a server: decoding, batches, facts."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.inference.service.pictures import picture

import canopy
from canopy.config import derive
from canopy.inference.service.problems import BadImageError
from canopy.inference.service.replica import ModelReplica
from canopy.inference.service.settings import ServiceOptions
from canopy.storage.run_dir import RunDir


@pytest.fixture
def replica(finished: RunDir, ray_here: None) -> ModelReplica:
    """A replica in this process."""
    return ModelReplica("default", finished.root, ServiceOptions(target_ms=1000, max_batch=16))


def test_the_first_bad_image_is_named(replica: ModelReplica) -> None:
    with pytest.raises(BadImageError, match="damaged or truncated") as caught:
        asyncio.run(replica.predict([picture(), picture()[:100], b""]))
    assert caught.value.number == 1


def test_a_request_whose_time_is_over_costs_nothing_more(
    replica: ModelReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted: list[int] = []
    predict_chips = replica._predict_chips

    def counting(chips_nHWC: NDArray[Any]) -> list[Any]:
        predicted.append(len(chips_nHWC))
        return predict_chips(chips_nHWC)

    monkeypatch.setattr(replica, "_predict_chips", counting)
    chip_HWC, now = np.zeros((32, 32, 3), np.uint8), time.monotonic()
    late, early = asyncio.run(replica.answers([(chip_HWC, now - 1), (chip_HWC, now + 60)]))
    assert late is None
    assert early is not None
    assert predicted == [1]
    replica._options = derive(replica._options, timeout_s=0.001)
    with pytest.raises(TimeoutError, match="time was over"):
        asyncio.run(replica.predict([picture()] * 200))
    assert predicted == [1]


def test_batches_follow_the_target(replica: ModelReplica) -> None:
    sizes = []
    for seconds in (0.4, 0.4, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 0.001):
        replica._resize_batch(4, seconds)
        batched: Any = replica._batched
        sizes.append(batched._get_max_batch_size())
    assert sizes[0] == 10
    assert sizes[9] == 1, "an image alone takes as long as the target"
    assert all(1 <= size <= 16 for size in sizes)


def test_its_facts_are_the_ensembles(replica: ModelReplica, finished: RunDir) -> None:
    facts, model = asyncio.run(replica.facts()), canopy.load(finished.root, device="cpu")
    assert facts.labels == model.labels.names
    assert set(facts.members) == set(model.members)
    assert len(facts.version) == 8
