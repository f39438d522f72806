"""YAML files that an option names."""

from __future__ import annotations

from pathlib import Path

import pytest

from canopy.errors import ConfigError
from canopy.storage.yaml_files import read_yaml


def test_the_content_is_read_and_a_broken_file_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("a: [1, 2]")
    assert read_yaml("--config", str(file)) == {"a": [1, 2]}
    file.write_text("password: [secret")
    with pytest.raises(
        ConfigError, match=r"--config must be YAML\. Got: \S*c\.yaml: .* \(line 1, column"
    ) as error:
        read_yaml("--config", str(file))
    assert "secret" not in str(error.value)
    for content in (b"a: \xe4", b"a: 2026-13-45", b"[" * 1000):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match="--config must be YAML"):
            read_yaml("--config", str(file))
