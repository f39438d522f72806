"""The meter of a run: node-hours and cost of the nodes that lived while it ran, over all its starts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from canopy.config import BudgetConfig
from canopy.cost.prices import PriceTable
from canopy.errors import InputError
from canopy.storage import files

COST_FILE = "cost.json"
"""File of a run directory with what all starts have used."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spent:
    """What a run has used.

    Args:
        node_hours: node-hours, the head included.
        cost: in the currency of the price table.
    """

    node_hours: float = 0.0
    cost: float = 0.0

    @classmethod
    def read(cls, path: str) -> Self:
        """What the former starts of a run have used; nothing where no file says it.

        A file that cannot be read is logged and taken as nothing: it must not keep a run from going on.
        """
        try:
            value = files.read_json(path)
            return cls(float(value["node_hours"]), float(value["cost"]))
        except FileNotFoundError:
            return cls()
        except (InputError, OSError, TypeError, KeyError, ValueError) as error:
            logger.warning("The cost of the former starts could not be read, it is taken as 0: %s", error)
            return cls()

    def to_json(self) -> dict[str, Any]:
        """The form in ``cost.json``."""
        return {"node_hours": round(self.node_hours, 4), "cost": round(self.cost, 4)}


@dataclass
class Meter:
    """Adds up node-hours and cost.

    Args:
        prices: the price table.
        spent: what former starts have used.
    """

    prices: PriceTable
    spent: Spent = field(default_factory=Spent)
    _time: float | None = None
    _unpriced: set[str] = field(default_factory=set)

    def update(self, nodes: Mapping[str, int], now: float) -> None:
        """Charge the time since the last call for the nodes that live now.

        A group without a price is charged like the dearest one, and logged once.

        Args:
            nodes: number of living nodes by their group.
            now: ``time.monotonic()``.
        """
        hours = 0.0 if self._time is None else (now - self._time) / 3600
        self._time = now
        prices = [(count, self._price(group)) for group, count in nodes.items()]
        self.spent = replace(
            self.spent,
            node_hours=self.spent.node_hours + hours * sum(nodes.values()),
            cost=self.spent.cost + hours * sum(count * price for count, price in prices),
        )

    def over(self, budget: BudgetConfig) -> str | None:
        """The limit that is reached, as a sentence; None while none is."""
        spent, unit = self.spent, self.prices.currency
        if budget.max_cost is not None and spent.cost >= budget.max_cost:
            return f"the run has cost {spent.cost:.2f} {unit}, its limit is {budget.max_cost:g} (--max-cost)"
        if budget.max_node_hours is not None and spent.node_hours >= budget.max_node_hours:
            return (
                f"the run has used {spent.node_hours:.2f} node-hours, its limit is "
                f"{budget.max_node_hours:g} (--max-node-hours)"
            )
        return None

    def _price(self, group: str) -> float:
        price = self.prices.price(group)
        if price is not None:
            return price
        if group not in self._unpriced:
            self._unpriced.add(group)
            logger.warning("the price table does not name %s: charged like the dearest nodes", group)
        return max(self.prices.nodes.values(), default=0.0)
