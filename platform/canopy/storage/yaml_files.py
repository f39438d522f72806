"""YAML files that an option names."""

from __future__ import annotations

from typing import Any

import yaml

from canopy.config.validation_errors import yaml_problem
from canopy.errors import ConfigError
from canopy.storage import files


def read_yaml(option: str, path: str) -> Any:
    """The content of a YAML file.

    Args:
        option: option that names it, for the error.
        path: path or URI of a file that exists.

    Raises:
        ConfigError: when it is not YAML.
    """
    try:
        return yaml.safe_load(files.read_bytes(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-13-45
        raise ConfigError(option, "must be YAML", f"{path}: {yaml_problem(error)}", "Correct it.") from None
