"""Base class of every config section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

NOT_FINGERPRINTED: dict[str, Any] = {"fingerprinted": False}
"""``json_schema_extra`` of a field that changes where or how fast a result is made, but not the result."""
FINGERPRINTED_IF_SET: dict[str, Any] = {"fingerprinted": "if set"}
"""``json_schema_extra`` of a field that fingerprints cover only where it differs from its default: a field
that is added later, whose default gives the results of the versions before it."""

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """Base class of every config section: frozen; unknown names, NaN and infinity are refused."""

    # validate_default: 0 and 0.0 would give one config two fingerprints.
    # hide_input_in_errors: a refused value may hold credentials, and tracebacks are logged.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        hide_input_in_errors=True,
    )

    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Former field name → present name. Config files may use either; fingerprints use the former name."""

    @model_validator(mode="before")
    @classmethod
    def _accept_former_names(cls, given: object) -> object:
        if not cls.RENAMED or not isinstance(given, dict):
            return given
        # A field given under both names keeps both keys: pydantic then refuses the former name.
        new_names = {name: cls.RENAMED.get(name, name) for name in given}
        return {name if new_names[name] in given else new_names[name]: value for name, value in given.items()}


SectionT = TypeVar("SectionT", bound=Section)


def derive(section: SectionT, **changes: Any) -> SectionT:
    """A validated copy of ``section`` with fields replaced (``model_copy`` does not validate).

    Raises:
        pydantic.ValidationError: when a change breaks a rule of the section.
    """
    return type(section).model_validate({**section.model_dump(), **changes})
