"""Fingerprints: hashes of everything that a stage's result depends on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from canopy.config.section import NEW_SINCE_FIRST_RUNS, NOT_FINGERPRINTED, Section


def fingerprint(*parts: object) -> str:
    """SHA-256, as 64 hex digits, of ``parts``: config sections and values that JSON can hold."""
    plain = [fingerprint_content(part) if isinstance(part, Section) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_content(section: Section) -> dict[str, Any]:
    """The fields of ``section`` that fingerprints cover: all but those marked ``NOT_FINGERPRINTED``.

    A renamed field appears under its former name, and a field marked ``NEW_SINCE_FIRST_RUNS`` is left out
    while it has its default, so that results made before the change stay valid.
    """
    content: dict[str, Any] = {}
    former_names = {new: former for former, new in section.RENAMED.items()}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if field.json_schema_extra == NOT_FINGERPRINTED:
            continue
        if field.json_schema_extra == NEW_SINCE_FIRST_RUNS and value == field.default:
            continue
        content[former_names.get(name, name)] = _plain(value)
    return content


def _plain(value: object) -> object:
    if isinstance(value, Section):
        return fingerprint_content(value)
    if isinstance(value, tuple):
        return [fingerprint_content(item) if isinstance(item, Section) else item for item in value]
    return value
