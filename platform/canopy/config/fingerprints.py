"""``fingerprint``: SHA-256 of config sections and JSON values. Each stage's ``key`` chooses what goes in."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from canopy.config.search_space import SearchSpace
from canopy.config.section import FINGERPRINTED_IF_SET, NOT_FINGERPRINTED, Section


def fingerprint(*parts: object) -> str:
    """SHA-256, as 64 hex digits, of ``parts``: config sections and values that JSON can hold."""
    plain = [fingerprint_content(part) if isinstance(part, Section) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_content(section: Section) -> dict[str, Any]:
    """The fields of ``section`` that fingerprints cover.

    Left out are those marked ``NOT_FINGERPRINTED``, and those marked ``FINGERPRINTED_IF_SET`` at their
    default. A renamed field appears under its former name, so that results made before the renaming stay
    valid.
    """
    content: dict[str, Any] = {}
    former_names = {new: former for former, new in section.RENAMED.items()}
    for name, field in type(section).model_fields.items():
        value, mark = getattr(section, name), field.json_schema_extra
        if mark == NOT_FINGERPRINTED or (mark == FINGERPRINTED_IF_SET and value == field.default):
            continue
        content[former_names.get(name, name)] = _plain(value)
    return content


def _plain(value: object) -> object:
    if isinstance(value, Section):
        return fingerprint_content(value)
    if isinstance(value, SearchSpace):
        return value.to_json()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
