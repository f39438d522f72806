"""Private interfaces behind Ray's Jobs API (``ray._private.runtime_env``, ``ray.dashboard``), Ray 2.60."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def packaged_files(directory: Path, excludes: Sequence[str]) -> list[Path]:
    """The files that Ray would upload as the working directory of a job, sorted.

    Private use: ``ray._private.runtime_env.packaging._dir_travel``, the walk by which Ray makes the archive.
    No public function says what will be uploaded.

    Args:
        directory: the working directory.
        excludes: patterns of the runtime environment; .gitignore, .rayignore and Ray's own are added.
    """
    packaging: Any = importlib.import_module("ray._private.runtime_env.packaging")
    constants: Any = importlib.import_module("ray._private.ray_constants")
    found: list[Path] = []
    root = directory.absolute()
    patterns = [*constants.get_runtime_env_default_excludes(), *excludes]
    packaging._dir_travel(
        root,
        [packaging._get_excludes(root, patterns)],
        lambda path: found.append(path) if path.is_file() else None,
        include_gitignore=os.environ.get(constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1",
        logger=logging.getLogger(__name__),
    )
    return sorted(found)


def cluster_version(client: Any) -> str:
    """Version of Ray on the cluster of a ``JobSubmissionClient``.

    Private use: ``SubmissionClient._server_ray_version``, which the client has read when it is made.
    Its public ``get_version`` gives the version of the API only.
    """
    return str(client._server_ray_version)
