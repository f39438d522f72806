"""Boolean options: ``True`` and ``False`` as in Python, ``true`` and ``false`` as in YAML."""

from __future__ import annotations

from typing import Any

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

REGISTRY = ConstructorRegistry()
"""Constructors of options for tyro, in addition to its own."""


@REGISTRY.primitive_rule
def boolean_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """The constructor of a boolean; None for other types. tyro's own knows capital letters only."""
    if info.type is not bool:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{True,False}",
        choices=("True", "False", "true", "false"),
        instance_from_str=lambda words: words[0] in ("True", "true"),
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )
