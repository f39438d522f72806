"""Watches the cost of a run and ends it, with checkpoints, when its limit is reached."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import ray

from canopy.config import BudgetConfig
from canopy.cost.meter import COST_FILE, Meter, Spent
from canopy.cost.prices import load_prices
from canopy.errors import SIGTERM_STATUS, BudgetError, ConfigError, Stopped
from canopy.runtime.console import Console
from canopy.runtime.metrics import set_gauge
from canopy.runtime.node_groups import OTHER, group_or_other, living_by_group, lost_by_group
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.monitor.suppressed_errors import SuppressedErrors

POLL_EVERY_S = 10.0
"""Seconds between two looks at the nodes."""
STORE_EVERY_S = 60.0
"""Seconds between two writes of ``cost.json``."""

logger = logging.getLogger(__name__)


class BudgetGuard:
    """Charges the nodes of the cluster to a run while the block lasts; Ray must be connected by then.

    At a limit it sends this process SIGTERM: trainings make a checkpoint and end, as after any SIGTERM. All
    nodes of the cluster are charged, also those on which other jobs work.

    Args:
        run_dir: the run directory; ``cost.json`` in it holds what all starts have used. It is written where
            there is a limit, or a group that costs something.
        budget: limits and price table.
        console: console of the job.
        poll_every_s: seconds between two looks at the nodes.

    Raises:
        ConfigError: when the price table cannot be used, or the former starts have used up a limit.
    """

    def __init__(
        self, run_dir: RunDir, budget: BudgetConfig, console: Console, poll_every_s: float = POLL_EVERY_S
    ) -> None:
        self._path, self._run, self._budget = run_dir.path(COST_FILE), files.shown(run_dir.root), budget
        self._console, self._poll_every_s = console, poll_every_s
        self.meter = Meter(load_prices(budget.prices), Spent.read(self._path))
        self.groups: Counter[str] = Counter()
        """Number of living nodes by their group, at the last look."""
        self._lost_before: Counter[str] | None = None
        self.reached: str | None = None
        """The limit that was reached, as a sentence."""
        self._errors = SuppressedErrors(logger)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="budget", daemon=True)
        self._stored = time.monotonic()
        over = self.meter.over(budget)
        if over is not None:
            option = "--max-cost" if "--max-cost" in over else "--max-node-hours"
            need = "must be above what the run has used already"
            raise ConfigError(option, need, over, "Raise it to go on from the last checkpoints.")

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()
        self._store()
        if self.reached is not None and is_end(error):
            kept = f"; {error.saved_work}" if isinstance(error, Stopped) else ""
            raise BudgetError(
                f"Stopped: {self.reached}{kept}. Raise the limit and start again to go on from there."
            ) from error

    def _watch(self) -> None:
        while not self._done.wait(self._poll_every_s):
            self._look()
            if time.monotonic() - self._stored > STORE_EVERY_S:
                self._store()
            over = self.meter.over(self._budget)
            if over is not None and not self._done.is_set():  # else the block has ended meanwhile
                self.reached = over
                self._console.say("cost", f"{over}: the run ends with checkpoints")
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _look(self) -> None:
        """Charge the time since the last look, and set the gauges."""
        with self._errors.suppress("The nodes could not be counted", ray.exceptions.RayError, RuntimeError):
            self._count(ray.nodes())  # type: ignore[no-untyped-call]
            self.meter.update(self.groups, time.monotonic())
        gauges = {
            "canopy_node_hours": self.meter.spent.node_hours,
            "canopy_node_hours_limit": self._budget.max_node_hours,
            "canopy_cost": self.meter.spent.cost,
            "canopy_cost_limit": self._budget.max_cost,
        }
        for name, value in gauges.items():
            if value is not None:
                set_gauge(name, value, run=self._run)

    def _count(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        """Count the nodes by their group: those that live, and those that were lost since the first look."""
        names = self.meter.prices.nodes
        self.groups, lost = living_by_group(nodes, names), lost_by_group(nodes, names)
        if self._lost_before is None:
            self._lost_before = lost
        for group in sorted({group_or_other(node, names) for node in nodes}):
            set_gauge("canopy_nodes", self.groups[group], run=self._run, group=group)
            set_gauge("canopy_nodes_lost", lost[group] - self._lost_before[group], run=self._run, group=group)

    def _store(self) -> None:
        self._stored = time.monotonic()
        has_limit = self._budget.max_cost is not None or self._budget.max_node_hours is not None
        if not has_limit and set(self.groups) <= {OTHER} and self.meter.spent.cost == 0:
            return
        with self._errors.suppress("The cost could not be written", OSError, ValueError):
            files.write_json(self._path, self.meter.spent.to_json())


def is_end(error: BaseException | None) -> bool:
    """Whether an exception is the end of a stage after SIGTERM."""
    return isinstance(error, Stopped) or (isinstance(error, SystemExit) and error.code == SIGTERM_STATUS)
