"""Search spaces of the sweep: ranges and choices by dotted field of a variant, and the named spaces.

A space is a name (``focal``, ``focal-grid``, ``recipe``, ``losses``) or a mapping such as::

    optim.lr: {low: 1e-4, high: 1e-2, log: true}
    loss.name: [bce, focal, asymmetric]
    loss.gamma: {low: 0, high: 4}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import ValidationError
from pydantic_core import core_schema

from canopy.config.section import Positive, Section
from canopy.config.validation_errors import config_error
from canopy.config.variant import VariantConfig
from canopy.errors import ConfigError, nearest

Choice = bool | int | float | str | None
"""A value of a field."""


class FieldRange(Section):
    """Numbers that a field may take."""

    low: float
    """Lowest value."""
    high: float
    """Highest value; must be above ``low``."""
    log: bool = False
    """Draw uniformly on a logarithmic scale; ``low`` must then be above zero."""
    step: Positive | None = None
    """Distance between two values, above 0; None: every number of the range, for a field of whole numbers
    every whole number."""


Domain = FieldRange | tuple[Choice, ...]
"""The values that one field may take."""
Space = Mapping[str, Domain]
"""Dotted field of a variant → its values."""

SpaceName = Literal["focal", "focal-grid", "recipe", "losses"]
SPACE_NAMES: tuple[SpaceName, ...] = ("focal", "focal-grid", "recipe", "losses")


class SearchSpace:
    """A named space, or a mapping of dotted fields to ranges and lists of choices.

    Args:
        given: the name, or the mapping with its ranges as mappings or :class:`FieldRange`.

    Raises:
        ConfigError: when a name is unknown, or a range or list is none.
    """

    # No pydantic model: tyro would take it for a section with options of its own.
    def __init__(self, given: object) -> None:
        self.root: str | dict[str, Domain] = _parsed(given)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self.root == other.root

    def __hash__(self) -> int:
        return hash(repr(self.root))

    def __repr__(self) -> str:
        return f"SearchSpace({self.root!r})"

    def to_json(self) -> Any:
        """The name, or the mapping with ranges as mappings and choices as lists."""
        if isinstance(self.root, str):
            return self.root
        return space_content(self.root)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        """How pydantic reads and writes a space in a section."""
        return core_schema.no_info_plain_validator_function(
            lambda given: given if isinstance(given, SearchSpace) else cls(given),
            serialization=core_schema.plain_serializer_function_ser_schema(SearchSpace.to_json),
        )

    def resolve(
        self, variant: VariantConfig, gamma: tuple[float, float], alpha: tuple[float, float]
    ) -> Space:
        """The fields and their values.

        Args:
            variant: the variant to sweep; the named spaces lie around its values.
            gamma: range of the focal gamma in the space ``focal``.
            alpha: range of the focal alpha there.
        """
        if isinstance(self.root, str):
            return named_space(cast(SpaceName, self.root), variant, gamma, alpha)
        return self.root


def _parsed(given: object) -> str | dict[str, Domain]:
    """The content of a space."""
    if isinstance(given, str):
        if given not in SPACE_NAMES:
            raise ConfigError(
                "space", "must be a known name or a mapping of fields", given, nearest(given, SPACE_NAMES)
            )
        return given
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(
            "space",
            "must be the name of a space, or a mapping of fields with at least one entry",
            repr(given),
            f"Known names: {', '.join(SPACE_NAMES)}.",
        )
    return {str(name): _domain(str(name), value) for name, value in given.items()}


def _domain(name: str, given: object) -> Domain:
    """The values of the field ``name``.

    Raises:
        ConfigError: when they are no range and no list, or empty.
    """
    if isinstance(given, Mapping):
        try:
            given = FieldRange.model_validate(given)
        except ValidationError as error:
            problem = config_error("the space", error)
            field = problem.thing.removesuffix(" in the space")
            raise ConfigError(f"{name}: {field}", problem.constraint, problem.got, problem.remedy) from None
    if isinstance(given, FieldRange):
        return _checked_range(name, given)
    if not isinstance(given, list | tuple):
        need = "must be a range {low, high, log, step} or a list of choices"
        raise ConfigError(name, need, repr(given), "Write {low: 0, high: 1} or [first, second].")
    choices = tuple(given)
    if not choices:
        raise ConfigError(name, "must have at least one choice", "an empty list", "Add a choice.")
    for n, choice in enumerate(choices):
        if not isinstance(choice, bool | int | float | str | None):
            need = "must have choices that are numbers, words, true, false or null"
            raise ConfigError(name, need, repr(choice), "Correct it.")
        if any(choice == other and type(choice) is type(other) for other in choices[:n]):
            raise ConfigError(name, "must name each choice once", f"{choice!r} twice", "Drop one.")
    return choices


def _checked_range(name: str, given: FieldRange) -> FieldRange:
    """``given``, when it holds more than one number."""
    text = f"low {given.low:g}, high {given.high:g}"
    if given.low >= given.high:
        kind = "reversed" if given.low > given.high else "empty"
        remedy = "Swap them." if kind == "reversed" else "Widen it, or set the field itself in the variant."
        raise ConfigError(
            name, f"must be a range whose low is below its high (this one is {kind})", text, remedy
        )
    if given.log and given.low <= 0:
        remedy = "Raise low, or leave log out."
        raise ConfigError(name, "must lie above zero to be drawn on a logarithmic scale", text, remedy)
    if given.step is not None and (given.log or given.step > given.high - given.low):
        need = "must have no step with log" if given.log else "must have a step of at most high - low"
        raise ConfigError(name, need, f"step {given.step:g}, {text}", "Lower the step, or leave it out.")
    return given


def named_space(
    name: SpaceName, variant: VariantConfig, gamma: tuple[float, float], alpha: tuple[float, float]
) -> dict[str, Domain]:
    """The space ``name``; the arguments are those of :meth:`SearchSpace.resolve`."""
    focal: dict[str, Domain] = {"loss.gamma": _interval(*gamma), "loss.alpha": _interval(*alpha)}
    match name:
        case "focal":
            return focal
        case "focal-grid":
            return {"loss.gamma": (1.0, 2.0, 3.0), "loss.alpha": (0.25, 0.5, 0.75)}
        case "recipe":
            lr = variant.optim.lr
            return {
                "optim.lr": FieldRange(low=lr / 4, high=lr * 4, log=True),
                "optim.weight_decay": FieldRange(low=0.002, high=0.5, log=True),
                "optim.ema_decay": _with(variant.optim.ema_decay, 0.0, 0.98, 0.99, 0.995, 0.999),
                "optim.warmup_fraction": FieldRange(low=0.02, high=0.4),
                "augment.mixup_alpha": _with(variant.augment.mixup_alpha, 0.0, 0.1, 0.2, 0.4),
                "augment.brightness": FieldRange(low=0, high=0.4),
            }
        case "losses":
            return {
                "loss.name": (
                    *("bce", "focal", "asymmetric", "distribution_balanced", "two_way", "logit_adjusted"),
                ),
                **focal,
                "loss.gamma_negative": FieldRange(low=1, high=6),
                "loss.clip": FieldRange(low=0, high=0.2),
                "loss.temperature": FieldRange(low=1, high=8, log=True),
                "loss.tau": FieldRange(low=0.25, high=2),
            }


def _with(own: float, *choices: float) -> Domain:
    """``choices`` and the variant's own value, in order."""
    return tuple(sorted({*choices, own}))


def _interval(low: float, high: float) -> Domain:
    """The numbers from ``low`` to ``high``, which may be one number."""
    return FieldRange(low=low, high=high) if low < high else (low,)


def space_content(space: Space) -> dict[str, Any]:
    """A space as JSON: ranges as mappings, choices as lists."""
    return {
        name: domain.model_dump(mode="json") if isinstance(domain, FieldRange) else list(domain)
        for name, domain in space.items()
    }


def describe_domain(domain: Domain) -> str:
    """A domain in words, such as ``0.0001 to 0.01 (log)`` or ``bce, focal``."""
    if isinstance(domain, FieldRange):
        details = [*(["log"] if domain.log else []), *([f"step {domain.step:g}"] if domain.step else [])]
        return f"{domain.low:g} to {domain.high:g}" + (f" ({', '.join(details)})" if details else "")
    return ", ".join(_plain(choice) for choice in domain)


def _plain(choice: Any) -> str:
    return f"{choice:g}" if isinstance(choice, float) else str(choice)
