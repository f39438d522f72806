"""Each private interface of Ray's core still does what Canopy uses it for."""

from __future__ import annotations

from urllib.parse import urlparse

import pytest
import ray

from canopy.runtime.ray_internals import core

pytestmark = pytest.mark.usefixtures("ray_here")


def test_the_version_is_the_tested_one() -> None:
    assert ray.__version__.startswith("2.60.")


def test_a_process_that_started_ray_runs_on_its_own_head() -> None:
    assert core.runs_on_own_head()

    @ray.remote
    def in_worker() -> bool:
        return core.runs_on_own_head()

    assert not ray.get(in_worker.remote())


def test_the_session_directory_holds_the_logs() -> None:
    assert any((core.session_directory() / "logs").glob("raylet*"))


def test_the_dashboard_address_is_the_one_that_ray_was_started_with() -> None:
    node = ray._private.worker.global_worker.node
    assert hasattr(node, "webui_url")
    address = core.dashboard_address()
    assert address is None or urlparse(f"http://{address}").port


def test_the_limits_of_the_autoscaler_are_read() -> None:
    from ray._raylet import GCS_AUTOSCALER_CLUSTER_CONFIG_KEY, GCS_AUTOSCALER_STATE_NAMESPACE
    from ray.core.generated import autoscaler_pb2

    assert core.autoscaler_limits() == {}  # no autoscaler has published any
    group = autoscaler_pb2.NodeGroupConfig(name="workers", max_count=3, resources={"CPU": 4, "GPU": 1})
    config = autoscaler_pb2.ClusterConfig(node_group_configs=[group])
    gcs = ray._private.worker.global_worker.gcs_client
    place = GCS_AUTOSCALER_CLUSTER_CONFIG_KEY.encode(), GCS_AUTOSCALER_STATE_NAMESPACE.encode()
    gcs.internal_kv_put(place[0], config.SerializeToString(), overwrite=True, namespace=place[1])
    try:
        assert core.autoscaler_limits() == {"CPU": 12, "GPU": 3}
    finally:
        gcs.internal_kv_del(place[0], del_by_prefix=False, namespace=place[1])
    assert core.autoscaler_limits() == {}
