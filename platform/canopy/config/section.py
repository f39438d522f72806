"""What every section of a config is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from math import floor
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

PLACE: dict[str, Any] = {"place": True}
"""``json_schema_extra`` of a field that says where or with how much, not what."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


def allowed(fraction: float, count: int) -> int:
    """How many of ``count`` a share of at most ``fraction`` lets through: of 100, 0.29 is 29, not 28."""
    return floor(fraction * count + 1e-9)


class Section(BaseModel):
    """Base of every section: frozen, strict about names, NaN and Inf refused."""

    # Defaults are validated too: 0 and 0.0 would give one config two fingerprints.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Fields by their former names: config files may still use them, and fingerprints do."""

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, given: object) -> object:
        if not cls.RENAMED or not isinstance(given, dict):
            return given
        return {cls.RENAMED.get(name, name): value for name, value in given.items()}


SectionT = TypeVar("SectionT", bound=Section)


def derive(section: SectionT, **changes: Any) -> SectionT:
    """A validated copy of ``section`` with fields replaced (``model_copy`` would not validate).

    Raises:
        pydantic.ValidationError: when a change breaks a rule of the section.
    """
    return type(section).model_validate({**section.model_dump(), **changes})


def essence(section: Section) -> dict[str, Any]:
    """What ``section`` says, without anything marked ``PLACE``: the part that fingerprints cover."""
    out: dict[str, Any] = {}
    former = {new: old for old, new in section.RENAMED.items()}
    for field_name, field in type(section).model_fields.items():
        if field.json_schema_extra == PLACE:
            continue
        value, name = getattr(section, field_name), former.get(field_name, field_name)
        if isinstance(value, Section):
            out[name] = essence(value)
        elif isinstance(value, tuple):
            out[name] = [essence(v) if isinstance(v, Section) else v for v in value]
        else:
            out[name] = value
    return out


def fingerprint(*parts: object) -> str:
    """64 hex digits that change exactly when one of the JSON-able ``parts`` (or sections) does."""
    plain = [essence(part) if isinstance(part, Section) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
