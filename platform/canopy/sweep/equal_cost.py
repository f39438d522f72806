"""Trials of equal cost: a network that costs more per image trains fewer epochs.

The seconds of a training are predicted as proportional to images x multiply-adds per image. The cost of a
trial is that of the swept variant over ``sweep.epochs`` epochs; a trial with another backbone, input size or
crop trains as many whole epochs as come closest to it, at least one. What wins is trained at full length by
the same rule, so that the winner is the better choice for the money, not the larger network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import ValidationError

from canopy.config import FieldRange, FieldValues, Space, Study, VariantConfig, set_fields
from canopy.config.search_space import Choice
from canopy.config.study import COST_FIELDS
from canopy.errors import ConfigError
from canopy.train.fleet.scheduler import multiply_adds


@dataclass(frozen=True)
class EqualCost:
    """The rule for the trials of one swept variant.

    Args:
        variant: the untouched variant, whose cost is the measure.
        image_size: height and width of a chip in pixels.
    """

    variant: VariantConfig
    image_size: int

    def relative(self, values: FieldValues) -> float:
        """Multiply-adds per image with ``values``, divided by those of the untouched variant.

        Raises:
            ConfigError: when a backbone is unknown.
        """
        costly = {name: value for name, value in values.items() if name in COST_FIELDS}
        if not costly:
            return 1.0
        return self._cost(set_fields(self.variant, costly)) / self._cost(self.variant)

    def _cost(self, variant: VariantConfig) -> float:
        model, size = variant.model, variant.augment.crop or self.image_size
        return multiply_adds(model.backbone, model.input_size, size)

    def epochs(self, values: FieldValues, reference: int) -> int:
        """Number of epochs with ``values`` that cost as much as ``reference`` epochs without them."""
        return max(1, round(reference / self.relative(values))) if reference else 0

    def at_full_length(self, values: FieldValues) -> dict[str, Any]:
        """``values`` with the numbers of epochs of a whole training of equal cost."""
        if not set(values) & set(COST_FIELDS):
            return dict(values)
        optim = self.variant.optim
        lengths = {"optim.epochs": self.epochs(values, optim.epochs)}
        if optim.rebalance_epochs:
            lengths["optim.rebalance_epochs"] = self.epochs(values, optim.rebalance_epochs)
        return {**values, **lengths}


def costly_points(space: Space) -> Iterator[dict[str, Any]]:
    """Every combination of the choices, and of the ends of the ranges, of the fields that change the cost."""
    names = [name for name in COST_FIELDS if name in space]
    ends: list[tuple[Choice, ...]] = [
        (int(domain.low), int(domain.high)) if isinstance(domain, FieldRange) else domain
        for domain in (space[name] for name in names)
    ]
    for combination in product(*ends):
        yield dict(zip(names, combination, strict=True))


def check_equal_cost(study: Study, image_size: int, epochs: int) -> None:
    """Refuse choices of which one epoch costs more than a whole trial, or whose training would be too short.

    Args:
        study: a swept variant.
        image_size: height and width of a chip in pixels.
        epochs: number of epochs of a trial of the untouched variant.

    Raises:
        ConfigError: names the choice.
    """
    rule = EqualCost(study.variant, image_size)
    for point in costly_points(study.space):
        text = ", ".join(f"{name} {value}" for name, value in point.items())
        ratio = rule.relative(point)
        if ratio > epochs:
            need = (
                f"needs trials of at least one epoch, but one epoch with {text} costs as much as "
                f"{ratio:.1f} of {study.name}"
            )
            remedy = "Raise sweep.epochs, or leave this choice out."
            raise ConfigError("sweep.equal_cost", need, f"sweep.epochs {epochs}", remedy)
        try:
            set_fields(study.variant, rule.at_full_length(point))
        except ValidationError as error:
            reason = str(error.errors()[0]["ctx"]["error"]) if "ctx" in error.errors()[0] else str(error)
            got = f"{rule.at_full_length(point)['optim.epochs']} epochs with {text}: {reason}"
            need = "needs a training that is long enough for the variant's settings"
            raise ConfigError("sweep.equal_cost", need, got, "Leave this choice out.") from None


def cost_text(study: Study, image_size: int, epochs: int) -> str:
    """The epochs of each choice in words: ``resnet18 4 epochs (x 1.00), resnet50 2 (x 1.07)``."""
    rule, parts = EqualCost(study.variant, image_size), []
    for point in costly_points(study.space):
        count = rule.epochs(point, epochs)
        share = rule.relative(point) * count / epochs
        words = " ".join(str(value) for value in point.values())
        parts.append(f"{words} {count} epochs ({share:.0%})")
    return "; ".join(parts)
