"""serve.yaml through Ray Serve's own schema, the KubeRay manifest through the operator's."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from canopy.inference.service import application

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "platform" / "deploy"


def service_schema() -> dict[str, Any]:
    """The OpenAPI schema of RayService; skips where the operator's definitions are absent."""
    shared = Path(os.environ.get("CANOPY_SHARED_KUBERAY", ROOT.parent / "shared" / "kuberay"))
    file = shared / "ray.io_rayservices.yaml.gz"
    if not file.exists():
        pytest.skip(f"KubeRay's definitions are not here ({shared})")
    # PyYAML in C: the definition has 20,000 lines.
    definition = yaml.load(gzip.decompress(file.read_bytes()), yaml.CSafeLoader)
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "kuberay" / "rayservice.yaml").read_text("utf-8"))
    return found


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with unknown fields refused, as Kubernetes prunes them in silence."""
    copy = {key: strict(value) if isinstance(value, dict) else value for key, value in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        copy.setdefault("additionalProperties", False)
        copy["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
    return copy


def test_the_operator_accepts_the_manifest_and_no_misspelt_field() -> None:
    schema = strict(service_schema())
    schema["properties"]["metadata"].pop("additionalProperties", None)
    jsonschema.validate(manifest(), schema)
    wrong = manifest()
    wrong["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(wrong, schema)


@pytest.mark.parametrize("place", ["serve.yaml", "kuberay/rayservice.yaml"])
def test_ray_serve_and_canopy_accept_the_config(place: str) -> None:
    content = yaml.safe_load((DEPLOY / place).read_text("utf-8"))
    if "spec" in content:
        content = yaml.safe_load(content["spec"]["serveConfigV2"])
    (app,) = ServeDeploySchema.model_validate(content).applications
    module, _, name = app.import_path.partition(":")
    assert (module, getattr(application, name)) == (application.__name__, application.build)
    arguments = application.ServiceArguments.model_validate(app.args)
    assert arguments.options.gpus_per_replica == 0.25
    assert arguments.options.auth


def test_one_ray_version_everywhere() -> None:
    import ray

    assert manifest()["spec"]["rayClusterConfig"]["rayVersion"] == ray.__version__
