"""Each private interface of Ray's core still does what Canopy uses it for."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
import ray
from tests.support import REPOSITORY

from canopy.runtime.ray_internals import core

pytestmark = pytest.mark.usefixtures("ray_here")


def test_the_version_is_the_tested_one() -> None:
    assert ray.__version__.startswith("2.60.")


def test_no_other_module_uses_private_interfaces_of_ray() -> None:
    code = [REPOSITORY / "platform" / "canopy", REPOSITORY / "jobs"]
    private = re.compile(r"\bray(\.\w+)*\._(private|internal|raylet)\b|executor\._")
    modules = [path for root in code for path in root.rglob("*.py") if "ray_internals" not in path.parts]
    assert [str(path) for path in modules if private.search(path.read_text())] == []


def test_a_process_that_started_ray_runs_on_its_own_head() -> None:
    assert core.runs_on_own_head()

    @ray.remote
    def in_worker() -> bool:
        return core.runs_on_own_head()

    assert not ray.get(in_worker.remote())


def test_the_last_started_address_is_read_where_ray_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    utils = importlib.import_module("ray._private.utils")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert core.last_started_address() is None
    (tmp_path / "ray").mkdir()
    utils.write_ray_address("127.0.0.1:1", str(tmp_path / "ray"))
    assert core.last_started_address() == "127.0.0.1:1"


def test_the_session_directory_holds_the_logs() -> None:
    assert any((core.session_directory() / "logs").glob("raylet*"))


def test_the_dashboard_address_is_the_one_that_ray_was_started_with() -> None:
    node = ray._private.worker.global_worker.node
    assert hasattr(node, "webui_url")
    address = core.dashboard_address()
    assert address is None or urlparse(f"http://{address}").port


def test_the_object_store_reports_what_it_holds() -> None:
    before, spilled = core.object_store_bytes()
    held = ray.put(np.zeros(5_000_000, np.uint8))
    assert core.object_store_bytes()[0] - before >= 5_000_000
    assert spilled >= 0
    del held


def test_the_limits_of_the_autoscaler_are_read() -> None:
    raylet: Any = importlib.import_module("ray._raylet")
    messages: Any = importlib.import_module("ray.core.generated.autoscaler_pb2")

    assert core.autoscaler_limits() == {}  # no autoscaler has published any
    group = messages.NodeGroupConfig(name="workers", max_count=3, resources={"CPU": 4, "GPU": 1})
    config = messages.ClusterConfig(node_group_configs=[group])
    worker: Any = ray._private.worker.global_worker
    gcs = worker.gcs_client
    key = raylet.GCS_AUTOSCALER_CLUSTER_CONFIG_KEY.encode()
    namespace = raylet.GCS_AUTOSCALER_STATE_NAMESPACE.encode()
    gcs.internal_kv_put(key, config.SerializeToString(), overwrite=True, namespace=namespace)
    try:
        assert core.autoscaler_limits() == {"CPU": 12, "GPU": 3}
    finally:
        gcs.internal_kv_del(key, del_by_prefix=False, namespace=namespace)
    assert core.autoscaler_limits() == {}
