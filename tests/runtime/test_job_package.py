"""What may travel with a submitted job."""

from __future__ import annotations

from pathlib import Path

import pytest

from canopy.errors import ConfigError, InputError
from canopy.runtime import job_package
from canopy.runtime.job_package import check_package


def write(directory: Path, files: dict[str, bytes]) -> Path:
    """``directory`` with these files."""
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return directory


def test_the_files_and_their_size_are_those_of_the_upload(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": b"1234", "deep/b.py": b"12", "left.jpg": b"x", "ignored.py": b"x"})
    write(tmp_path, {".gitignore": b"ignored.py\n"})
    names, size = check_package(tmp_path, {"excludes": ["*.jpg"]})
    assert [name for name in names if name != ".gitignore"] == ["a.py", "deep/b.py"]
    assert size - (".gitignore" in names) * len(b"ignored.py\n") == 6


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("configs/.env", b"A=b"),
        ("configs/.env.production", b"A=b"),
        ("jobs/id_ed25519", b"x"),
        ("keys/Server.PEM", b"x"),
        (".aws/config", b"x"),
        ("configs/a.yaml", b"key: |\n  -----BEGIN OPENSSH PRIVATE KEY-----\n"),
        (".envrc", b"x"),
        ("configs/secrets.yaml", b"x"),
        ("configs/c.yaml", b"token: hf_" + b"aB3" * 11 + b"c"),
        ("configs/d.yaml", b"token: ghp_" + b"aB3" * 12),
        ("configs/b.yaml", b"id: AKIA" + b"ABCDEFGHIJKLMNOP"),
    ],
)
def test_a_secret_is_refused_by_its_name_or_content(tmp_path: Path, name: str, content: bytes) -> None:
    write(tmp_path, {"jobs/a.py": b"x", name: content})
    with pytest.raises(ConfigError, match="must hold no secret") as refused:
        check_package(tmp_path, {})
    assert refused.value.got == name


def test_a_secret_that_is_excluded_does_no_harm(tmp_path: Path) -> None:
    write(tmp_path, {"jobs/a.py": b"x", "configs/.env": b"A=b"})
    assert check_package(tmp_path, {"excludes": [".?*"]})[0] == ["jobs/a.py"]


def test_a_secret_variable_is_refused_without_its_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY") as refused:
        check_package(tmp_path, {"env_vars": {"PYTHONPATH": "platform", "AWS_SECRET_ACCESS_KEY": "hidden"}})
    assert "hidden" not in str(refused.value)
    named = "env_vars of the runtime environment: MLFLOW_TRACKING_URI"
    with pytest.raises(InputError, match=named) as also_refused:
        check_package(tmp_path, {"env_vars": {"MLFLOW_TRACKING_URI": "https://me:hidden@host/"}})
    assert "hidden" not in str(also_refused.value)


def test_too_much_is_refused_with_the_largest_file(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": b"x", "data/chips.bin": b""})
    with (tmp_path / "data" / "chips.bin").open("r+b") as file:
        file.truncate(job_package.MAX_UPLOAD_BYTES + 1)  # sparse: takes no room
    with pytest.raises(ConfigError, match="at most 100 MiB") as refused:
        check_package(tmp_path, {})
    assert "data/chips.bin, has 100" in str(refused.value)
