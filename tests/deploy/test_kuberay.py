"""The Kubernetes manifests: KubeRay's own schema accepts them, and they agree with cluster.yaml."""

from __future__ import annotations

import gzip
import os
import shlex
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import ray
import yaml

from canopy.config.presets import PRESETS, preset
from canopy.train.fleet.resources import bundles
from canopy.train.fleet.scheduler import fits

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "platform" / "deploy"
KINDS = {"raycluster": "rayclusters", "rayjob": "rayjobs", "rayservice": "rayservices"}
TRAINING = ("raycluster", "rayjob")


def schema_of(definitions: str) -> dict[str, Any]:
    """The OpenAPI schema of a kind of KubeRay's; skips where the operator's definitions are absent."""
    shared = Path(os.environ.get("CANOPY_SHARED_KUBERAY", ROOT.parent / "shared" / "kuberay"))
    file = shared / f"ray.io_{definitions}.yaml.gz"
    if not file.exists():
        pytest.skip(f"KubeRay's definitions are not here ({shared})")
    definition = yaml.load(gzip.decompress(file.read_bytes()), yaml.CSafeLoader)  # in C: 20,000 lines
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def manifest(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "kuberay" / f"{name}.yaml").read_text("utf-8"))
    return found


def cluster_of(content: dict[str, Any]) -> dict[str, Any]:
    """The specification of the Ray cluster in a manifest."""
    spec: dict[str, Any] = content["spec"]
    found: dict[str, Any] = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    return found


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with unknown fields refused, as Kubernetes prunes them in silence."""
    copy = {key: strict(value) if isinstance(value, dict) else value for key, value in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        copy.setdefault("additionalProperties", False)
        copy["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
    return copy


@pytest.mark.parametrize("name", KINDS)
def test_the_operator_accepts_the_manifest_and_no_misspelt_field(name: str) -> None:
    schema = strict(schema_of(KINDS[name]))
    schema["properties"]["metadata"].pop("additionalProperties", None)
    jsonschema.validate(manifest(name), schema)
    wrong = manifest(name)
    cluster_of(wrong)["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(wrong, schema)


@pytest.mark.parametrize("name", KINDS)
def test_every_cluster_is_of_this_ray_with_the_autoscaler_and_the_token(name: str) -> None:
    cluster = cluster_of(manifest(name))
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        (container,) = group["template"]["spec"]["containers"]
        given = {one["name"] for one in container.get("env", [])}
        assert not given & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}, "the operator's business"
        assert container["resources"]["limits"] == container["resources"]["requests"]


def worker_groups(name: str) -> dict[str, dict[str, float]]:
    """What a pod of each group offers, by its name."""
    found = {}
    for group in cluster_of(manifest(name))["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
        found[group["groupName"]] = {
            "CPU": float(limits["cpu"]),
            "GPU": float(limits.get("nvidia.com/gpu", 0)),
        }
    return found


@pytest.mark.parametrize("name", TRAINING)
def test_the_groups_are_those_of_cluster_yaml_and_hold_every_preset(name: str) -> None:
    groups = worker_groups(name)
    types = yaml.safe_load((ROOT / "cluster.yaml").read_text("utf-8"))["available_node_types"]
    nodes = {node["labels"]["canopy/group"]: node["resources"] for node in types.values()}
    assert set(groups) == set(nodes) - {"head"}
    for group, offer in groups.items():
        assert offer["GPU"] == nodes[group].get("GPU", 0)
        assert offer["CPU"] < nodes[group]["CPU"], "Kubernetes takes a share of the node"
    for known in PRESETS:
        for variant in preset(known).variants:
            for demand in bundles(variant.scale):
                assert any(fits(demand, offer) for offer in groups.values()), variant.name


def test_the_job_runs_the_pipeline_with_the_environment_of_submitted_jobs() -> None:
    spec = manifest("rayjob")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    python, job, *arguments = shlex.split(spec["entrypoint"])
    assert python == "python"
    assert (ROOT / job).is_file()
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert options["--preset"] in PRESETS
    assert options["--run-dir"].startswith("s3://")
    given = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    submitted = yaml.safe_load((DEPLOY / "runtime_env.yaml").read_text("utf-8"))["env_vars"]
    assert given.pop("PYTHONPATH") == f"/opt/canopy/{submitted.pop('PYTHONPATH')}"
    assert given == submitted
