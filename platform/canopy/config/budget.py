"""The budget: what a run may cost, and from which prices and node groups that is computed."""

from __future__ import annotations

from canopy.config.section import Positive, Section


class BudgetConfig(Section):
    """Limits of cost and node-hours; they change no result."""

    max_cost: Positive | None = None
    """Largest cost of the run over all its starts, in the currency of the price table, above 0: a dearer
    estimate is refused, and at the limit the run ends with checkpoints. None: no limit."""
    max_node_hours: Positive | None = None
    """Largest number of node-hours of the run over all its starts, the head included, above 0; enforced like
    ``max_cost``. None: no limit."""
    cluster: str | None = None
    """File for ``ray up``, or manifest of KubeRay, whose node groups the estimate is made for; None:
    no estimate."""
    prices: str | None = None
    """YAML file in the form of platform/canopy/cost/prices.yaml; None: that table, for cluster.yaml."""
