"""Collective operations: alone they return what they are given; real processes exchange it over gloo."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import start_processes

from canopy.runtime.collectives import (
    broadcast_buffers,
    gather_objects,
    is_distributed,
    is_rank_zero,
    sum_over_ranks,
)


def test_a_process_without_others_keeps_its_values() -> None:
    assert not is_distributed()
    assert is_rank_zero()
    assert sum_over_ranks([0.1, 3]) == [0.1, 3]
    assert gather_objects({"a": 1}) == [{"a": 1}]
    network = nn.BatchNorm1d(1)
    broadcast_buffers(network)
    assert network.running_mean is not None
    assert network.running_mean.item() == 0


def one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
    network = nn.BatchNorm1d(1)
    assert network.running_mean is not None
    network.running_mean.fill_(rank + 5)
    broadcast_buffers(network)
    found = {
        "distributed": is_distributed(),
        "leader": is_rank_zero(),
        "sums": sum_over_ranks([0.5, rank, 2.0**53 - 1 if rank == 0 else 0]),
        "objects": gather_objects(f"rank {rank}"),
        "buffer": network.running_mean.item(),
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_three_ranks_hold_the_same_results(tmp_path: Path) -> None:
    start_processes(one_rank, (str(tmp_path),), nprocs=3, start_method="spawn")  # type: ignore[no-untyped-call]
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert [one.pop("leader") for one in found] == [True, False, False]
    assert found[0] == found[1] == found[2]
    assert found[0] == {
        "distributed": True,
        "sums": [1.5, 3.0, 2.0**53 - 1],  # float64: counts of images stay exact
        "objects": ["rank 0", "rank 1", "rank 2"],
        "buffer": 5.0,
    }
