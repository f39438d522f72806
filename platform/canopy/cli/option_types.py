"""Options of other types than tyro knows, or in other forms: booleans and search spaces.

``true`` and ``false``, as in YAML, are booleans as well. A search space is one word, the name of a space or a
mapping in YAML::

    --sweep.space recipe
    --sweep.space '{optim.lr: {low: 1e-4, high: 1e-2, log: true}, loss.name: [bce, focal]}'
"""

from __future__ import annotations

from typing import Any

import yaml
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from canopy.config import SearchSpace

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


@REGISTRY.primitive_rule
def search_space_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """The constructor of a search space; None for other types."""
    if info.type is not SearchSpace:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME|YAML",
        instance_from_str=lambda words: parse_space(words[0]),
        is_instance=lambda value: isinstance(value, SearchSpace),
        str_from_instance=lambda space: [space_text(space)],
    )


def parse_space(text: str) -> Any:
    """The content of a search space in one word of the command line; the config section checks it.

    Text that is no YAML stays as it is. (tyro would print an error raised here as a box without a remedy.)
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def space_text(space: SearchSpace) -> str:
    """The word that gives ``space``."""
    content = space.to_json()
    if isinstance(content, str):
        return content
    return yaml.safe_dump(content, default_flow_style=True, sort_keys=False, width=10_000).strip()
