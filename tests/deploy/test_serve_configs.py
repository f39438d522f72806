"""serve.yaml and the service on Kubernetes through Ray Serve's own schema."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from canopy.inference.service import application

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "platform" / "deploy"


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
