"""The node groups in a manifest of KubeRay, in the form of a file for ``ray up``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

HEAD = "head"
KINDS = {"RayCluster": (), "RayJob": ("rayClusterSpec",), "RayService": ("rayClusterConfig",)}
"""Where the cluster's spec lies below ``spec``, by the kind of the manifest."""
SUFFIXES = {"m": 1e-3, "": 1.0, "k": 1e3}
"""Kubernetes' suffixes of numbers of CPUs and GPUs."""


def is_manifest(content: object) -> bool:
    """Whether a YAML document is a manifest of KubeRay."""
    return isinstance(content, Mapping) and str(content.get("apiVersion", "")).startswith("ray.io/")


def as_cluster_config(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The groups of a RayCluster, a RayJob or a RayService as a file for ``ray up`` has them.

    The operator gives a pod the CPUs and GPUs of its first container's limits, unless ``rayStartParams`` say
    otherwise. A manifest has no limit for all groups together: it is their sum.

    Raises:
        LookupError: when a part is missing.
        ValueError: when an amount is no number, or two groups have one name.
    """
    spec = manifest["spec"]
    for part in KINDS[manifest["kind"]]:
        spec = spec[part]
    workers: dict[str, dict[str, Any]] = {}
    for group in spec.get("workerGroupSpecs") or []:
        if (name := str(group["groupName"])) in (HEAD, *workers):
            raise ValueError(f"two groups named {name}")
        workers[name] = {
            "resources": resources_of(group),
            "max_workers": int(group["maxReplicas"]) * int(group.get("numOfHosts", 1)),
            "labels": group.get("labels") or {},
        }
    head = {"resources": resources_of(spec["headGroupSpec"]), "max_workers": 0}
    return {
        "head_node_type": HEAD,
        "available_node_types": {HEAD: head, **workers},
        "max_workers": sum(group["max_workers"] for group in workers.values()),
        "idle_timeout_minutes": float(spec.get("autoscalerOptions", {}).get("idleTimeoutSeconds", 60)) / 60,
    }


def resources_of(group: Mapping[str, Any]) -> dict[str, float]:
    """Amount of each of Ray's resources on a pod of a group."""
    container = group["template"]["spec"]["containers"][0]["resources"]
    limits = {**container.get("requests", {}), **container.get("limits", {})}
    found = {"CPU": float(math.ceil(number(limits.get("cpu", 0))))}
    for name, amount in limits.items():
        if str(name).endswith("/gpu"):  # nvidia.com/gpu, amd.com/gpu
            found["GPU"] = number(amount)
    given = group.get("rayStartParams") or {}
    for option, name in (("num-cpus", "CPU"), ("num-gpus", "GPU")):
        if option in given:
            found[name] = float(given[option])
    custom = given.get("resources", {})
    while isinstance(custom, str):  # JSON in a shell's quotes, itself a JSON text
        custom = json.loads(custom.strip("'"))
    return {**found, **{str(name): float(amount) for name, amount in custom.items()}}


def number(quantity: object) -> float:
    """A quantity of Kubernetes, such as ``14``, ``"500m"`` or ``"2k"``, as a number."""
    text = str(quantity)
    suffix = text[-1:] if text[-1:] in SUFFIXES else ""
    return float(text.removesuffix(suffix)) * SUFFIXES[suffix]
