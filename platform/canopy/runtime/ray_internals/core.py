"""Private interfaces of Ray's core (``ray._private``), Ray 2.60."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray


def runs_on_own_head() -> bool:
    """Whether this process started the head node of the Ray that it uses.

    Private use: ``ray._private.worker._global_node``. No public function distinguishes a Ray of one's own
    from a cluster that was joined.
    """
    node = _global_node()
    return node is not None and bool(node.is_head())


def dashboard_address() -> str | None:
    """``host:port`` of the dashboard, or None when it does not run.

    Private use: ``ray._private.worker.global_worker.node.webui_url``. The public way is the return value of
    ``ray.init``, which a process that joined Ray elsewhere does not have.
    """
    node: Any = ray._private.worker.global_worker.node
    return getattr(node, "webui_url", None) or None


def last_started_address() -> str | None:
    """Address of the cluster that ``ray start`` started last on this machine, whether or not it still runs.

    Private use: ``ray._private.utils.read_ray_address``. ``ray.init`` joins that address by itself, and waits
    many minutes for a cluster that was killed and left it behind.
    """
    utils: Any = importlib.import_module("ray._private.utils")
    return utils.read_ray_address() or None


def session_directory() -> Path:
    """Directory of Ray's session on this node, which holds ``logs/``.

    Private use: ``Node.get_session_dir_path``. No public function names the directory.
    """
    return Path(_global_node().get_session_dir_path())


def autoscaler_limits() -> dict[str, float]:
    """Largest amount of each resource that the autoscaler may bring; empty where it publishes none.

    Private use: ``GlobalState.get_max_resources_from_cluster_config``. Ray publishes the limits of the
    cluster's growth in no other way.
    """
    state: Any = ray._private.state.state
    limits: Mapping[str, float] | None = state.get_max_resources_from_cluster_config()
    return {name: float(amount) for name, amount in (limits or {}).items()}


def object_store_bytes() -> tuple[int, int]:
    """Bytes in use in the cluster's object stores, and bytes that they have spilled to disk.

    Private use: ``ray._private.internal_api``. The public ways are the dashboard, which may not run, and
    Prometheus metrics, which lag by seconds.
    """
    api: Any = importlib.import_module("ray._private.internal_api")
    context = ray.get_runtime_context()
    store = api.get_memory_info_reply(api.get_state_from_address(context.gcs_address)).store_stats
    return int(store.object_store_bytes_used), int(store.spilled_bytes_total)


def gpu_utilization(uuid: str) -> float | None:
    """Share of the last moment in which a GPU was busy, in [0, 1]; None where the driver does not say.

    Private use: ``ray._private.thirdparty.pynvml``, Ray's copy of NVIDIA's library; Ray's own metrics
    are made with it. ``torch.cuda.utilization`` needs the same library as another package.

    Args:
        uuid: the GPU's UUID without its prefix, as torch gives it.
    """
    nvml: Any = importlib.import_module("ray._private.thirdparty.pynvml")
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
        return float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100
    except nvml.NVMLError:
        return None


def _global_node() -> Any:
    return ray._private.worker._global_node
