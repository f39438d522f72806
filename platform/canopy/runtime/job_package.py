"""What travels to the cluster with a submitted job: the code, within a size, and never a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from canopy.errors import SECRET_NAME, ConfigError, refuse_credentials

MAX_UPLOAD_BYTES = 100 << 20
"""Largest package: the head keeps it in memory, and every node fetches it."""
SECRET_FILES = (
    *(".env", ".env.*", ".envrc", ".git", ".netrc", ".aws", ".ssh", ".kube", ".docker", ".config", ".ray"),
    *(".pypirc", ".npmrc", ".git-credentials", "kubeconfig", "secrets.y*ml", "secrets.json", "secrets.toml"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.key", "*.p12", "*.pfx", "*.kdbx"),
    *("credentials", "credentials.*", "auth_token", "token.txt", "service-account*.json"),
)
"""Names of files and directories that hold secrets, or the history of the code."""
SECRET_CONTENT = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    rb"|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{60,}\b|\bhf_[A-Za-z0-9]{34}\b"
)
"""A private key, the id of a key of AWS, or a token of GitHub or of the Hugging Face hub."""


def check_package(directory: Path, runtime_env: Mapping[str, Any]) -> tuple[list[str], int]:
    """The files that Ray will upload with a job, and their bytes in all.

    Args:
        directory: the working directory.
        runtime_env: the job's runtime environment; ``excludes`` and ``env_vars`` are read.

    Returns:
        Paths below ``directory``, sorted, and the sum of their sizes.

    Raises:
        ConfigError: when a secret would travel, or too much.
        InputError: when the value of a variable is an address with credentials.
    """
    from canopy.runtime.ray_internals.jobs import packaged_files

    for name, value in (runtime_env.get("env_vars") or {}).items():
        refuse_credentials(f"env_vars of the runtime environment: {name}", str(value))
        if re.fullmatch(SECRET_NAME, name, re.IGNORECASE):
            must = "must hold no secret, because Ray stores it and shows it"
            remedy = "Give the nodes a role, or set the variable on the nodes."
            raise ConfigError("env_vars of the runtime environment", must, name, remedy)
    files = packaged_files(directory, runtime_env.get("excludes", ()))
    names = [str(file.relative_to(directory.absolute())) for file in files]
    sizes = [file.stat().st_size for file in files]
    if sum(sizes) > MAX_UPLOAD_BYTES:
        largest = names[sizes.index(max(sizes))]
        got = f"{sum(sizes) / 2**20:.0f} MiB; the largest file, {largest}, has {max(sizes) / 2**20:.0f}"
        remedy = "Move data out of this directory, or exclude it in the runtime environment."
        raise ConfigError("The job's code", "must have at most 100 MiB, because it is uploaded", got, remedy)
    for name, file in zip(names, files, strict=True):
        if is_secret_name(name) or SECRET_CONTENT.search(file.read_bytes()):
            remedy = "Move it out of this directory, or exclude it in the runtime environment."
            raise ConfigError("The job's code", "must hold no secret, because it is uploaded", name, remedy)
    return names, sum(sizes)


def is_secret_name(path: str) -> bool:
    """Whether a part of ``path`` has the name of a secret."""
    return any(fnmatch(part.lower(), pattern) for part in Path(path).parts for pattern in SECRET_FILES)
