"""runtime_env.yaml: Ray accepts it, and what it uploads is the code, all of it and nothing else."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env import packaging
from ray.runtime_env import RuntimeEnv

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "platform" / "deploy" / "runtime_env.yaml"


@pytest.fixture
def environment() -> dict[str, Any]:
    """The file as ``ray job submit`` reads it."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


def upload(directory: Path, environment: dict[str, Any], tmp_path: Path) -> zipfile.ZipFile:
    """The very archive that ``ray job submit`` would upload."""
    target = tmp_path / "working_dir.zip"
    excludes = get_runtime_env_default_excludes() + environment["excludes"]
    packaging._zip_files(str(directory), excludes, str(target), include_gitignore=True)
    return zipfile.ZipFile(target)


def test_ray_accepts_it(environment: dict[str, Any]) -> None:
    assert set(environment) <= RuntimeEnv.known_fields
    accepted = RuntimeEnv(**environment)
    assert accepted.env_vars() == environment["env_vars"]
    assert accepted["working_dir"] == "."
    assert int(environment["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30
    assert (ROOT / environment["env_vars"]["PYTHONPATH"] / "canopy").is_dir()


CODE = [
    "platform/canopy/data/loading/batch_streams.py",
    "platform/canopy/report/page.html.j2",
    "platform/canopy/report/page.css",
    "jobs/pipeline.py",
    "jobs/benchmarks/ablation/baseline32.yaml",
    "configs/mine.yaml",
]
LEFT_BEHIND = [
    ".venv/lib/torch.so",
    ".git/objects/pack",
    "data/train-jpg/train_0.jpg",
    "runs/demo-12345678/models/weights.safetensors",
    "runs/demo-12345678/summary.json",
    "shared-copy/oof.parquet",
    "uv.lock",
    ".mypy_cache/3.11/x.json",
    ".pytest_cache/v/x",
    "jobs/__pycache__/pipeline.pyc",
    "tests/test_lock.py",
    "dist/canopy.whl",
    "scratch.py",
    "platform/deploy/aws/policy.json",
]
SECRETS = [
    ".env",
    ".env.local",
    ".netrc",
    ".aws/credentials",
    ".ssh/id_ed25519",
    ".kube/config",
    ".mlflow/credentials",
    "id_rsa",
    "key.pem",
    "service-account.json",
    "gcp-key-1234.json",
    "token.txt",
    "secrets.yaml",
]


def package(environment: dict[str, Any], names: list[str], tmp_path: Path) -> set[str]:
    """The files that travel from a repository that holds ``names`` and the .gitignore of this one."""
    repository = tmp_path / "repository"
    for name in names:
        file = repository / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    (repository / ".gitignore").write_bytes((ROOT / ".gitignore").read_bytes())
    with upload(repository, environment, tmp_path) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_only_code_and_configs_travel(environment: dict[str, Any], tmp_path: Path) -> None:
    assert package(environment, [*CODE, *LEFT_BEHIND], tmp_path) == set(CODE)


def test_no_secret_travels_wherever_it_lies(environment: dict[str, Any], tmp_path: Path) -> None:
    places = ("", "platform/", "platform/canopy/", "platform/canopy/data/", "jobs/", "configs/")
    names = [place + name for place in places for name in SECRETS]
    found = package(environment, [*CODE, *names], tmp_path)
    assert found - set(CODE) == {"configs/secrets.yaml"}, "a config file; configs hold no secrets"


def test_this_repository_fits_with_room_to_spare(environment: dict[str, Any], tmp_path: Path) -> None:
    with upload(ROOT, environment, tmp_path) as archive:
        files = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
    paths = (ROOT / "platform" / "canopy").rglob("*")
    code = {str(p.relative_to(ROOT)) for p in paths if p.is_file() and "__pycache__" not in p.parts}
    assert code <= set(files)
    assert {str(p.relative_to(ROOT)) for p in (ROOT / "jobs").glob("*.py")} <= set(files)
    assert not [name for name in files if re.match(r"(\.venv|\.git/|runs|data|tests)", name)]
    assert sum(files.values()) < packaging.GCS_STORAGE_MAX_SIZE / 5, max(files.items(), key=lambda f: f[1])


def test_the_image_copies_what_exists() -> None:
    lines = (FILE.parent / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert {"requirements.lock", "platform", "jobs"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
    assert any("--require-hashes" in line for line in lines)
