"""Studies, derived from the config (no section of it): a variant, its space, and who takes the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from canopy.config.search_space import Domain, FieldRange, SearchSpace, Space, describe_domain
from canopy.config.section import derive
from canopy.config.sweep import SamplerName, SweepConfig
from canopy.config.sweep_fields import (
    FIXED,
    READERS,
    FieldValues,
    in_order,
    is_read,
    number_type,
    set_fields,
    sweepable_fields,
    value_of,
)
from canopy.config.validation_errors import config_error
from canopy.config.variant import VariantConfig
from canopy.errors import ConfigError, nearest

if TYPE_CHECKING:
    from canopy.config.experiment import Experiment

GRID_LIMIT = 10_000
"""Maximum number of points of a grid."""


COST_FIELDS = ("model.backbone", "model.input_size", "augment.crop")
"""Fields that change the cost of an image."""
LENGTHS = ("optim.epochs", "optim.rebalance_epochs")
"""Fields that a sweep at equal cost sets with those of ``COST_FIELDS``."""


@dataclass(frozen=True)
class Study:
    """The search over one variant.

    Args:
        variant: the variant that trials train.
        space: the fields and their values, those that decide what is read first.
        sampler: how points are drawn.
        option: the option that gave the space, for messages.
    """

    variant: VariantConfig
    space: Space
    sampler: SamplerName
    option: str

    @property
    def name(self) -> str:
        """Name of the swept variant."""
        return self.variant.name


def studies_of(config: Experiment) -> tuple[Study, ...]:
    """The studies: that of the reference first, then those of ``sweep.variants``; empty without a sweep."""
    settings = config.sweep
    if settings.trials == 0 or not any(variant.swept for variant in config.variants):
        return ()
    by_name = {variant.name: variant for variant in config.variants}
    studies = []
    if (reference := reference_of(config)) is not None:
        studies.append(_study(reference, settings.space, settings, "sweep.space"))
    for name, space in settings.variants.items():
        studies.append(_study(by_name[name], space, settings, f"sweep.variants.{name}"))
    return tuple(studies)


def reference_of(config: Experiment) -> VariantConfig | None:
    """The variant swept over ``sweep.space``; None when every swept variant has its own space."""
    own = config.sweep.variants
    if not any(variant.swept and variant.name not in own for variant in config.variants):
        return None
    if config.sweep.reference is not None:
        return next(v for v in config.variants if v.name == config.sweep.reference)
    return next(v for v in config.variants if v.swept and v.name not in own)


def _study(variant: VariantConfig, space: SearchSpace | None, settings: SweepConfig, option: str) -> Study:
    given = space or SearchSpace("focal")
    fields = given.resolve(variant, settings.gamma, settings.alpha)
    sampler = settings.effective_sampler or ("grid" if given.root == "focal-grid" else "tpe")
    return Study(variant, {name: fields[name] for name in in_order(fields)}, sampler, option)


def study_for(config: Experiment, variant: VariantConfig) -> Study | None:
    """The study whose result ``variant`` takes; None when it takes none."""
    if not variant.swept:
        return None
    studies = {study.option: study for study in studies_of(config)}
    return studies.get(f"sweep.variants.{variant.name}", studies.get("sweep.space"))


def members_of(config: Experiment, variant: VariantConfig) -> tuple[VariantConfig, ...]:
    """The variants that are trained in place of ``variant``, without the values of the sweep.

    A swept variant gives ``sweep.members`` of them, ``NAME-1`` and so on, each with a seed of its own; any
    other is trained itself.
    """
    count = config.sweep.members
    if count is None or variant.name not in {study.name for study in studies_of(config)}:
        return (variant,)
    return tuple(derive(variant, name=f"{variant.name}-{n + 1}", seed=variant.seed + n) for n in range(count))


def check_members(config: Experiment) -> None:
    """Refuse members of a variant that is not swept, or more of them than the space has points.

    Their names must be free and not too long.

    Raises:
        ConfigError: names the variant.
    """
    names = [variant.name for variant in config.variants]
    for study in studies_of(config) if config.sweep.members else ():
        thing = f"sweep.members: variant {study.name}"
        if not study.variant.swept:
            need, remedy = "must have swept, to be replaced by its members", "Set its swept to true."
            raise ConfigError(thing, need, "false", remedy)
        points, count = number_of_points(study), config.sweep.members
        if count is not None and points is not None and points < count:
            need, got = f"must have a space of at least {count} points", f"{points} ({study.option})"
            raise ConfigError(thing, need, got, "Widen the space, or lower sweep.members.")
        try:
            members = members_of(config, study.variant)
        except ValidationError:
            need = f"must have a name that is short enough to be followed by -{config.sweep.members}"
            raise ConfigError(thing, need, f"{len(study.name)} characters", "Shorten it.") from None
        taken = next((member.name for member in members if member.name in names), None)
        if taken is not None:
            raise ConfigError(
                thing, "must leave the names of its members free", repr(taken), "Rename that variant."
            )


def number_of_points(study: Study) -> int | None:
    """Number of different points of a space without ranges that have no step; None of any other."""
    if any(isinstance(domain, FieldRange) and domain.step is None for domain in study.space.values()):
        return None
    return len(grid_points(study))


def taken_fields(variant: VariantConfig, values: FieldValues) -> dict[str, Any]:
    """The part of ``values`` that ``variant`` takes from its study."""
    if isinstance(variant.swept, bool):
        return dict(values) if variant.swept else {}
    taken = set(variant.swept)
    if taken & set(COST_FIELDS):
        taken |= set(LENGTHS)
    return {name: value for name, value in values.items() if name in taken}


def check_sweep(config: Experiment) -> None:
    """Refuse a sweep that could not run, or whose result a variant could not take.

    Raises:
        ConfigError: names the field, and what is wrong with its values.
    """
    names = [variant.name for variant in config.variants]
    for name in config.sweep.variants:
        if name not in names:
            raise ConfigError(
                f"sweep.variants.{name}", "must name a variant", repr(name), nearest(name, names)
            )
        if not config.variants[names.index(name)].swept:
            remedy = f"Set swept of variant {name} to true, or leave its space out."
            raise ConfigError(
                f"sweep.variants.{name}", "must belong to a variant with swept", "false", remedy
            )
    for variant in config.variants:
        study = study_for(config, variant)
        if study is not None:
            check_taker(variant, study)
    check_members(config)
    for study in studies_of(config):
        if config.sweep.warm_start and study.sampler != "tpe":
            need, remedy = "needs the sampler tpe", "Set sweep.sampler to tpe, or leave the earlier runs out."
            raise ConfigError("sweep.warm_start", need, f"{study.sampler} ({study.option})", remedy)
        if config.sweep.equal_cost and not set(study.space) & set(COST_FIELDS):
            need = f"needs one of {', '.join(COST_FIELDS)} in the space, which alone change the cost"
            raise ConfigError("sweep.equal_cost", need, f"none in {study.option}", "Leave it out.")
        check_space(study)
        check_grid(study, config.sweep)


def check_space(study: Study) -> None:
    """Refuse fields that do not exist, that are not read, or that do not take their values.

    Raises:
        ConfigError: see :func:`check_sweep`.
    """
    known = sweepable_fields()
    for name, domain in study.space.items():
        thing = f"{study.option}: {name}"
        if name in FIXED or name.startswith("scale."):
            reason = FIXED.get(name, "it does not change the result")
            raise ConfigError(thing, f"cannot be swept: {reason}", describe_domain(domain), "Leave it out.")
        if name not in known:
            raise ConfigError(thing, "must be a field of a variant", name, nearest(name, known))
        if isinstance(domain, FieldRange):
            _check_numbers(thing, domain, number_type(known[name]))
        base = _reading(study, name)
        tried = (domain.low, domain.high) if isinstance(domain, FieldRange) else domain
        for value in tried:
            number = number_type(known[name]) is int and isinstance(domain, FieldRange)
            _check_value(thing, base, {name: int(value) if number else value}, domain)  # type: ignore[arg-type]


def _check_numbers(thing: str, domain: FieldRange, kind: type | None) -> None:
    """Refuse a range for a field of words, and broken numbers for a field of whole numbers."""
    if kind is None:
        need = "must have a list of choices, because the field takes no numbers"
        raise ConfigError(thing, need, describe_domain(domain), "Write [first, second].")
    numbers = [domain.low, domain.high, *([domain.step] if domain.step else [])]
    if kind is int and any(number % 1 for number in numbers):
        need = "must be a range of whole numbers"
        raise ConfigError(thing, need, describe_domain(domain), "Round low, high and step.")


def _reading(study: Study, name: str) -> VariantConfig:
    """The study's variant with the first method of the space that reads the field ``name``."""
    variant = study.variant
    if name not in READERS:
        return variant
    method, readers = READERS[name]
    offered = study.space.get(method, (value_of(variant, method),))
    found = [choice for choice in offered if choice in readers] if isinstance(offered, tuple) else []
    if not found:
        shown = ", ".join(str(choice) for choice in offered) if isinstance(offered, tuple) else "a range"
        raise ConfigError(
            f"{study.option}: {name}",
            f"needs {method} {' or '.join(readers)}, because no other reads it",
            f"{shown} (variant {study.name})",
            f"Set {method} to {readers[0]}, add it to the space, or leave {name} out.",
        )
    return set_fields(variant, {method: found[0]})


def _check_value(thing: str, base: VariantConfig, values: FieldValues, domain: Domain) -> None:
    """Refuse a value that the field does not take."""
    try:
        set_fields(base, values)
    except ValidationError as error:
        problem = config_error("the variant", error)
        kind = "range" if isinstance(domain, FieldRange) else "choices"
        (got,) = values.values()
        raise ConfigError(
            thing,
            f"must have {kind} that the field takes: {problem.constraint}",
            f"{got!r} among {describe_domain(domain)}",
            "Correct the range." if isinstance(domain, FieldRange) else "Correct or drop the choice.",
        ) from None


def check_grid(study: Study, settings: SweepConfig) -> None:
    """Refuse a grid that is not finite, or that has more points than the sweep has trials.

    Raises:
        ConfigError: see :func:`check_sweep`.
    """
    if study.sampler != "grid":
        return
    for name, domain in study.space.items():
        if isinstance(domain, FieldRange) and domain.step is None:
            raise ConfigError(
                f"{study.option}: {name}",
                "must have a step or be a list of choices for the sampler grid",
                describe_domain(domain),
                "Add a step, or choose another sweep.sampler.",
            )
    points = len(grid_points(study))
    if points > min(settings.trials, GRID_LIMIT):
        remedy = f"Set sweep.trials to {points}, or choose another sweep.sampler."
        if points > GRID_LIMIT:
            remedy = "Leave fields out, or choose another sweep.sampler."
        limit = min(settings.trials, GRID_LIMIT)
        raise ConfigError("sweep.trials", f"must be at least {points}, the points of the grid", limit, remedy)


def grid_points(study: Study) -> list[dict[str, Any]]:
    """Every combination of the values, without fields that it does not read; each once, in order.

    At most one more than ``GRID_LIMIT``.
    """
    found: dict[str, dict[str, Any]] = {}
    values = [grid_values(name, domain) for name, domain in study.space.items()]
    for combination in product(*values):
        point = dict(zip(study.space, combination, strict=True))
        point = {name: value for name, value in point.items() if is_read(name, study.variant, point)}
        found.setdefault(repr(point), point)
        if len(found) > GRID_LIMIT:
            break
    return list(found.values())


def grid_values(name: str, domain: Domain) -> tuple[Any, ...]:
    """The values of a choice, or of a range with a step, both ends included where the step meets them."""
    if isinstance(domain, tuple):
        return domain
    kind: Callable[[float], Any] = number_type(sweepable_fields()[name]) or float
    return tuple(kind(value) for value in _steps(domain))


def _steps(domain: FieldRange) -> Iterator[float]:
    assert domain.step is not None
    for n in range(int((domain.high - domain.low) / domain.step + 1e-9) + 1):
        yield domain.low + n * domain.step


def check_taker(variant: VariantConfig, study: Study) -> None:
    """Refuse a variant that takes fields that are not swept, or that it would not read.

    Raises:
        ConfigError: see :func:`check_sweep`.
    """
    if isinstance(variant.swept, tuple):
        for name in variant.swept:
            if name not in study.space:
                thing, need = f"variant {variant.name}: swept", "must name fields of its search space"
                raise ConfigError(thing, need, name, nearest(name, study.space))
    taken = taken_fields(variant, dict.fromkeys(study.space))
    for method in sorted({READERS[name][0] for name in taken if name in READERS}):
        if method in taken:
            continue
        named = [name for name in taken if READERS.get(name, ("",))[0] == method]
        unread = [name for name in named if value_of(variant, method) not in READERS[name][1]]
        if unread:
            shared = [one for one in READERS[unread[0]][1] if all(one in READERS[name][1] for name in named)]
            readers = shared or READERS[unread[0]][1]
            raise ConfigError(
                f"variant {variant.name}: swept",
                f"needs {method} {' or '.join(readers)} to take {unread[0]} from the sweep",
                repr(value_of(variant, method)),
                f"Set {method} to {readers[0]} or swept to false.",
            )


def values_text(space: Mapping[str, Domain]) -> str:
    """A space in words, such as ``optim.lr 0.001 to 0.01 (log); loss.name bce, focal``."""
    return "; ".join(f"{name} {describe_domain(domain)}" for name, domain in space.items())
