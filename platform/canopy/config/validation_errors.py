"""Translates errors of pydantic and of YAML into text for :class:`canopy.errors.ConfigError`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from canopy.errors import ConfigError, InputError

CONSTRAINTS: Mapping[str, str] = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be greater than or equal to {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be less than or equal to {le:g}",
    "finite_number": "must be a finite number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "tuple_type": "must be a list",
    "dict_type": "must be a section of names and values",
    "model_type": "must be a section of names and values",
    "missing": "must be given",
    "extra_forbidden": "must be the name of an option",
}
"""Constraint by pydantic's error type; the braces are fields of the error's ``ctx``."""

REMEDIES: Mapping[str, str] = {
    "missing": "Add it.",
    "extra_forbidden": "Correct the name or remove it; --help lists the options.",
}
"""Remedy by pydantic's error type; for other types the remedy is to correct the value."""


def config_error(origin: str, error: ValidationError, section: str = "") -> ConfigError:
    """The first problem of ``error``; the remedy includes the number of further problems.

    Args:
        origin: where the values come from, such as ``the command line`` or a file.
        error: validation error of an experiment or of one of its sections.
        section: dotted name of the section that was validated; empty for the whole experiment.
    """
    first = error.errors()[0]
    name = ".".join(str(part) for part in (section, *first["loc"]) if part != "") or "the experiment"
    more = f" ({error.error_count() - 1} more after this one.)" if error.error_count() > 1 else ""
    rule = first.get("ctx", {}).get("error")
    if isinstance(rule, InputError):  # raised by a validator of a config section
        thing = _placed(rule.thing, name, origin)
        return ConfigError(thing, rule.constraint, rule.got, rule.remedy + more)
    got = first["input"]
    if first["type"] == "missing":
        got = "nothing"
    elif first["type"] == "extra_forbidden":  # the value may be a secret, such as a password
        got = first["loc"][-1]
    remedy = REMEDIES.get(first["type"], "Correct it.")
    return ConfigError(f"{name} in {origin}", _constraint(first), got, remedy + more)


def _placed(thing: str, location: str, origin: str) -> str:
    """Full name and origin of a rule's field: ``variants.0.loss.alpha in FILE`` for ``loss.alpha``."""
    section, _, field = thing.partition(".")
    if not re.fullmatch(r"[\w.]+", thing):  # several fields, or a variant and its field
        return f"{location} in {origin}: {thing}"
    if f"{thing}.".startswith(f"{location}."):
        return f"{thing} in {origin}"
    if location.rpartition(".")[2] == section:
        return f"{location}.{field} in {origin}" if field else f"{location} in {origin}"
    return f"{location} in {origin}: {thing}"


def _constraint(details: ErrorDetails) -> str:
    context: dict[str, Any] = details.get("ctx", {})
    if details["type"] in CONSTRAINTS:
        return CONSTRAINTS[details["type"]].format(**context)
    return f"must be valid ({details['msg']})"


def yaml_problem(error: Exception) -> str:
    """What is wrong with a YAML file and where, without a piece of its text, which may hold credentials."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        place = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
        return f"{error.problem} ({place})"
    return " ".join(str(error).split())
