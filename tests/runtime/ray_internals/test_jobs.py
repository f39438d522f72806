"""Each private interface behind Ray's Jobs API still does what Canopy uses it for."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import SimpleNamespace

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env import packaging
from ray.dashboard.modules.dashboard_sdk import SubmissionClient

from canopy.runtime.ray_internals import jobs


def test_the_listed_files_are_those_of_rays_archive(tmp_path: Path) -> None:
    directory, target = tmp_path / "code", tmp_path / "code.zip"
    for name in ("a.py", "deep/b.py", "deep/c.jpg", ".git/config", "run/x", ".hidden"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("x")
    (directory / ".gitignore").write_text("run/\n")
    excludes = ["*.jpg"]
    packaging._zip_files(
        str(directory), get_runtime_env_default_excludes() + excludes, str(target), include_gitignore=True
    )
    with zipfile.ZipFile(target) as archive:
        expected = {name for name in archive.namelist() if not name.endswith("/")}
    listed = {str(path.relative_to(directory)) for path in jobs.packaged_files(directory, excludes)}
    assert listed == expected >= {"a.py", "deep/b.py"}


def test_the_client_keeps_the_version_of_the_cluster() -> None:
    client = SubmissionClient("http://127.0.0.1:1")
    assert client._server_ray_version is None  # until it has asked
    assert jobs.cluster_version(SimpleNamespace(_server_ray_version="2.60.0")) == "2.60.0"
