"""Names of tasks, actors and data sets, as Ray's state API has them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import ray
from tests.ray_state import actor_names, task_names

from canopy.data.loading.ray_stream import Batch, BlockStream
from canopy.runtime.logging import log_context
from canopy.runtime.nodes import Node, alive_nodes, call_on_nodes
from canopy.runtime.ray_internals.train import named_worker
from canopy.runtime.ray_tasks import map_blocks
from canopy.runtime.task_names import RUN_LENGTH, ascii_text, run_name, task_name


def test_a_name_says_whose_it_is() -> None:
    assert task_name("decode", {}) == "decode"
    fields = {"run": "s3://bucket/runs/first/", "variant": "resnet-cbam", "fold": "2", "rank": "1"}
    assert task_name("decode", fields) == "decode first resnet-cbam fold 2 rank 1"
    with log_context(run="/runs/demo-1a", variant="resnet"):
        assert task_name("sweep") == "sweep demo-1a resnet"
    assert task_name("sweep") == "sweep"


def test_a_name_is_short_and_printable_ascii() -> None:
    assert run_name("/runs/" + "x" * 200) == "x" * RUN_LENGTH
    assert task_name("read", {"run": "/runs/Wälder\n"}) == r"read W\xe4lder\n"


def test_tags_are_escaped_to_printable_ascii() -> None:
    assert ascii_text("/runs/a b") == "/runs/a b"
    assert ascii_text("ü\n中\x1b") == r"\xfc\n\u4e2d\x1b"


class Base:
    def answer(self) -> int:
        return 42


def double(number: int) -> int:
    return 2 * number


def look(node: Node) -> str:
    return node.id


def halve(block: Batch) -> Batch:
    return {"row": block["id"], "half": block["id"] / 2}


@pytest.mark.usefixtures("ray_here")
def test_the_state_api_shows_the_names_of_tasks_actors_and_streams() -> None:
    group = ray.util.placement_group([{"CPU": 0.1}, {"CPU": 0.1}])
    strategy: Any = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
    for place in (0, 1):
        remote: Any = ray.remote(num_cpus=0.1)(named_worker(Base, "train first resnet fold 0", 2))
        actor = remote.options(scheduling_strategy=strategy(group, placement_group_bundle_index=place))
        assert ray.get(actor.remote().answer.remote()) == 42
    with log_context(run="/runs/first", variant="resnet", fold=0, rank=1):
        assert list(map_blocks(double, [1, 2])) == [2, 4]
        assert set(call_on_nodes(look, alive_nodes()).values())
        blocks = list(BlockStream(4, 2, halve, num_cpus=0.5))
    np.testing.assert_array_equal(np.concatenate([block["half"] for block in blocks]), [0, 0.5, 1, 1.5])
    assert {f"train first resnet fold 0 worker {n} of 2" for n in (1, 2)} <= actor_names()
    owner = "first resnet fold 0 rank 1"
    wanted = {f"double {owner}", f"look {owner}", f"MapBatches(halve {owner})"}
    end = time.monotonic() + 20
    while not wanted <= task_names():
        assert time.monotonic() < end, task_names()
        time.sleep(0.5)
    ray.util.remove_placement_group(group)
