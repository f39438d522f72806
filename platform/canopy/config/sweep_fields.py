"""The fields of a variant that a sweep may change: their names, when they are read, how they are set."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from canopy.config.search_space import Choice, Domain, Space
from canopy.config.section import Section
from canopy.config.variant import VariantConfig

FieldValues = Mapping[str, Choice]
"""Dotted field of a variant → its value: a point of a search space."""

READERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "loss.gamma": ("loss.name", ("focal", "distribution_balanced")),
    "loss.alpha": ("loss.name", ("focal",)),
    "loss.gamma_positive": ("loss.name", ("asymmetric",)),
    "loss.gamma_negative": ("loss.name", ("asymmetric",)),
    "loss.clip": ("loss.name", ("asymmetric",)),
    "loss.weighting": ("loss.name", ("weighted_bce",)),
    "loss.weight_cap": ("loss.name", ("weighted_bce",)),
    "loss.class_weights": ("loss.name", ("weighted_bce",)),
    "loss.tau": ("loss.name", ("logit_adjusted",)),
    "loss.temperature": ("loss.name", ("two_way",)),
    "sampling.threshold": ("sampling.name", ("repeat_factor",)),
    "sampling.power": ("sampling.name", ("weighted",)),
}
"""Field that only some methods read → the field that names the method, and these methods."""

NO_SOFT_LABELS = "trials train on hard labels"
ONE_PHASE = "trials train in one phase"
NO_AVERAGES = "a trial is scored by its epochs, not by averages of their weights"
FIXED = {
    "name": "it names the variant",
    "swept": "it says what the variant takes from the sweep",
    "seed": "a lucky seed is no better setting",
    "tta": "it does not change the training",
    "optim.epochs": "sweep.epochs sets the length of a trial",
    "optim.rebalance_epochs": "trials train the first phase only",
    "optim.patience": "sweep.scheduler stops trials",
    "optim.select_by": "sweep.objective is what a sweep maximizes",
    "augment.place": "it does not change the result",
    "distill.run": NO_SOFT_LABELS,
    "distill.weight": NO_SOFT_LABELS,
    "distill.temperature": NO_SOFT_LABELS,
    "finetune.method": ONE_PHASE,
    "finetune.probe_epochs": ONE_PHASE,
    "finetune.probe_views": ONE_PHASE,
    "finetune.probe_lr": ONE_PHASE,
    "finetune.wise_ft": NO_AVERAGES,
    "finetune.swa_epochs": NO_AVERAGES,
    "finetune.swa_lr": NO_AVERAGES,
    "loss.class_weights": "it is a list with a number per label",
}
"""Field that a sweep cannot change → the reason. Neither can it change ``scale``."""


def sweepable_fields() -> dict[str, FieldInfo]:
    """Every field that a sweep may change, by its dotted name."""
    found = dict(_walk(VariantConfig, ""))
    return {
        name: field for name, field in found.items() if name not in FIXED and not name.startswith("scale.")
    }


def _walk(owner: type[Section], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in owner.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _walk(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def number_type(field: FieldInfo) -> type[int] | type[float] | None:
    """``int`` or ``float`` for a field that takes such numbers; None for words and switches."""
    kinds = set(_plain_types(field.annotation))
    return float if float in kinds else int if int in kinds else None


def _plain_types(annotation: Any) -> Iterator[Any]:
    """The members of a union, without their metadata."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _plain_types(get_args(annotation)[0])
    elif origin is Union or isinstance(annotation, types.UnionType):
        for part in get_args(annotation):
            yield from _plain_types(part)
    else:
        yield annotation


def value_of(variant: VariantConfig, name: str) -> Any:
    """The value of the dotted field ``name``."""
    value: Any = variant
    for part in name.split("."):
        value = getattr(value, part)
    return value


def is_read(name: str, variant: VariantConfig, values: FieldValues) -> bool:
    """Whether ``variant`` with ``values`` reads the field ``name``."""
    if name not in READERS:
        return True
    method, readers = READERS[name]
    return values.get(method, value_of(variant, method)) in readers


def in_order(space: Space) -> list[str]:
    """The fields of a space, those that decide what is read first."""
    methods = {method for method, _ in READERS.values()}
    return sorted(space, key=lambda name: name not in methods)


def set_fields(variant: VariantConfig, values: FieldValues) -> VariantConfig:
    """A validated copy of ``variant`` with ``values``.

    Where a value names another method (``loss.name``), fields that this method does not read take their
    default: a focal alpha is no part of a BCE.

    Raises:
        pydantic.ValidationError: when a value breaks a rule of the variant.
    """
    content = variant.model_dump()
    for name, value in values.items():
        _set(content, name, value)
    for name, (method, readers) in READERS.items():
        if method in values and values[method] not in readers:
            _set(content, name, _default(name))
    return VariantConfig.model_validate(content)


def _set(content: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    for part in path:
        content = content[part]
    content[last] = value


def _default(name: str) -> Any:
    owner: Any = VariantConfig
    *path, last = name.split(".")
    for part in path:
        owner = owner.model_fields[part].annotation
    return owner.model_fields[last].default


def contains(domain: Domain, value: object) -> bool:
    """Whether ``value`` lies in ``domain``; a step is not looked at."""
    if isinstance(domain, tuple):
        return value in domain
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and domain.low <= value <= domain.high
    )


SYMBOLS = {"loss.gamma": "γ", "loss.alpha": "α"}


def describe_values(values: FieldValues) -> str:
    """A point in words: ``γ 2.00, α 0.25``, ``lr 0.0031, name focal``; ``the default`` without fields."""
    if not values:
        return "the default"
    if set(values) == set(SYMBOLS):
        return ", ".join(f"{symbol} {values[name]:.2f}" for name, symbol in SYMBOLS.items())
    parts = []
    for name, value in values.items():
        shown = f"{value:.3g}" if isinstance(value, float) else str(value)
        parts.append(f"{SYMBOLS.get(name, name.rpartition('.')[2])} {shown}")
    return ", ".join(parts)
