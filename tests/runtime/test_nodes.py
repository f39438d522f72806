"""Tasks on each node."""

from __future__ import annotations

import time

import pytest

from canopy.errors import ClusterError, DataError
from canopy.runtime.nodes import Node, alive_nodes, call_on_nodes

pytestmark = pytest.mark.usefixtures("ray_here")


def where(node: Node) -> tuple[str, str]:
    import ray

    return node.address, ray.get_runtime_context().get_node_id()


def test_the_task_runs_on_its_node_and_a_lost_node_has_no_answer() -> None:
    (here,) = alive_nodes()
    gone = Node("a" * 56, "10.255.255.1")
    assert call_on_nodes(where, [here, gone]) == {here: (here.address, here.id)}


def test_a_node_that_does_not_answer_is_named() -> None:
    def sleep(node: Node) -> None:
        time.sleep(3)

    (here,) = alive_nodes()
    with pytest.raises(ClusterError, match=rf"Node {here.address} must answer within 0\.1 s"):
        call_on_nodes(sleep, [here], timeout_s=0.1)


def test_an_error_of_the_work_arrives_as_itself() -> None:
    def refuse(node: Node) -> None:
        raise DataError("a", "must b", "c", "D.")

    with pytest.raises(DataError, match="a must b"):
        call_on_nodes(refuse, alive_nodes())
