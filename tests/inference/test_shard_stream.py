"""The stream that batch inference and scenes share: each shard is read, predicted and written once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from canopy.inference.batch import Workplace
from canopy.inference.shard_stream import shard_stream


class Double:
    """Actor: doubles the values of a block."""

    def __init__(self, factor: int) -> None:
        self._factor = factor

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        return {"shard": block["shard"][:1], "sum": np.array([self._factor * block["value"].sum()])}


@pytest.mark.usefixtures("ray_here")
def test_every_shard_passes_once(tmp_path: Path) -> None:
    folder = str(tmp_path)

    def read(block: dict[str, Any]) -> dict[str, Any]:
        (shard,) = block["shard"].tolist()
        return {"shard": np.full(3, shard), "value": np.arange(3) + shard}

    def write(block: dict[str, Any]) -> dict[str, Any]:
        for shard, total in zip(block["shard"].tolist(), block["sum"].tolist(), strict=True):
            Path(folder, f"{shard}.txt").write_text(str(total))
        return {"shard": block["shard"]}

    dataset = shard_stream([0, 2, 5], read, Double, (2,), write, Workplace(1, 0.0, 1), on_this_node=True)
    seen = [n for block in dataset.iter_batches(batch_size=None) for n in block["shard"].tolist()]
    assert sorted(seen) == [0, 2, 5]
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"0.txt": "6", "2.txt": "18", "5.txt": "36"}
