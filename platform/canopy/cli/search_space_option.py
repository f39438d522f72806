"""Search spaces as options: one word, the name of a space or a mapping in YAML.

::

    --sweep.space recipe
    --sweep.space '{optim.lr: {low: 1e-4, high: 1e-2, log: true}, loss.name: [bce, focal]}'
"""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import ValidationError
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from canopy.config import SearchSpace
from canopy.config.validation_errors import config_error
from canopy.errors import ConfigError

REGISTRY = ConstructorRegistry()
"""Constructors of options for tyro, in addition to its own."""


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


def parse_space(text: str) -> SearchSpace:
    """The search space in one word of the command line.

    Raises:
        ConfigError: when it is no space.
    """
    try:
        return SearchSpace.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ConfigError(
            "--sweep.space", "must be a name or a mapping in YAML", error, "Correct it."
        ) from None
    except ValidationError as error:
        raise config_error("the command line", error, "sweep.space") from None


def space_text(space: SearchSpace) -> str:
    """The word that gives ``space``."""
    content = space.model_dump(mode="json")
    if isinstance(content, str):
        return content
    return yaml.safe_dump(content, default_flow_style=True, sort_keys=False, width=10_000).strip()
