"""The members that a sweep sends to the fleet: the trials that make the best ensemble together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from canopy.config import EnsembleConfig, FieldValues, describe_values
from canopy.data.catalogue import Catalogue
from canopy.ensemble.forward_selection import select_forward
from canopy.errors import StageError
from canopy.labels import LabelSet
from canopy.predictions.predictions import Predictions
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage
from canopy.sweep.records import TrialRecord
from canopy.sweep.rounds import NextPoint, run_round
from canopy.sweep.selection import is_complete
from canopy.sweep.trials import TrialContext

MAX_CANDIDATES = 50
"""Number of best trials among which members are chosen."""


@dataclass(frozen=True)
class Member:
    """A trial that goes on as a member of the fleet."""

    trial: int
    """Number of the trial, from 0."""
    values: FieldValues
    """Its values."""
    rank: int
    """Its place among the complete trials by score, from 1."""
    alone: float
    """Cross-fitted objective of the ensemble section, of the trial alone."""
    together: float
    """The same of the ensemble of this trial and the members before it."""

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {**asdict(self), "values": dict(self.values)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Undo :meth:`to_json`."""
        return cls(**content)


@dataclass(frozen=True)
class ValidationRows:
    """The validation rows on which the trials' probabilities are given.

    Args:
        ids_N: ids.
        targets_NK: targets, 0 and 1.
        labels: the label set.
    """

    ids_N: NDArray[np.str_]
    targets_NK: NDArray[np.uint8]
    labels: LabelSet


def by_score(records: Mapping[int, TrialRecord]) -> list[int]:
    """Numbers of the complete trials, best first, each point once."""
    numbers = [n for n, record in records.items() if is_complete(record)]
    order: list[int] = []
    for n in sorted(numbers, key=lambda n: -(records[n].score or 0.0)):
        if records[n].values not in [records[other].values for other in order]:
            order.append(n)
    return order


def next_to_complete(records: Mapping[int, TrialRecord]) -> list[int]:
    """Numbers of the trials that were stopped early, the longest first, of these the best.

    A point comes once, and not where a trial of it is complete.
    """
    stopped = [n for n, record in records.items() if record.stopped_early]
    points = [record.values for record in records.values() if is_complete(record)]
    order: list[int] = []
    for n in sorted(stopped, key=lambda n: (-records[n].epochs, -(records[n].score or 0.0))):
        if records[n].values not in points:
            points.append(records[n].values)
            order.append(n)
    return order


def with_complete_trials(
    found: list[TrialRecord],
    context: TrialContext,
    catalogue: Catalogue,
    next_point: NextPoint,
    console: Console,
) -> list[TrialRecord]:
    """The trials; where there are fewer complete ones than members, stopped ones run again to their end.

    Args:
        found: the trials of the search.
        context: inputs of the search.
        catalogue: the run's catalogue.
        next_point: draws the points of the search.
        console: prints the lines of these trials.

    Raises:
        StageError: when there are still too few.
    """
    settings, name, records = context.settings, context.variant.name, context.records
    assert settings.members is not None, "no members are wanted"
    tried: set[int] = set()
    while (short := settings.members - len(by_score(records.ended))) > 0:
        numbers = [n for n in next_to_complete(records.ended) if n not in tried][:short]
        if not numbers:
            break
        tried.update(numbers)
        console.say(
            Stage.SWEEP,
            f"{name}: {settings.members} members need {short} more complete trials: of those that were "
            f"stopped early, {len(numbers)} run again to their end",
        )
        unstopped = replace(context, unstopped=True)
        found = run_round(unstopped, catalogue, settings.trials, next_point, console, only=numbers)
    complete = len(by_score(records.ended))
    if complete < settings.members:
        failed = sum(record.error is not None for record in found)
        raise StageError(
            f"sweep: sweep.members is {settings.members}, but only {complete} different trials of {name} ran "
            f"to their end ({failed} failed). Raise sweep.trials or lower sweep.members: the trials that are "
            "there are kept."
        )
    return found


def choose_members(
    records: Mapping[int, TrialRecord],
    probs: Mapping[int, NDArray[np.float32]],
    rows: ValidationRows,
    config: EnsembleConfig,
    count: int,
) -> tuple[Member, ...]:
    """The ``count`` trials that make the best ensemble together, in the order in which they were taken.

    Args:
        records: the trials by number.
        probs: number of a trial -> its probabilities (N, K) after its last epoch.
        rows: the validation rows.
        config: the ensemble section.
        count: number of members.

    Raises:
        PredictionsError: when there are too few rows for the folds of the ensemble section.
    """
    order = by_score(records)[: max(MAX_CANDIDATES, count)]
    predictions = {
        str(n): Predictions(rows.ids_N, probs[n], rows.labels, targets_NK=rows.targets_NK) for n in order
    }
    steps = select_forward(predictions, config, count)
    return tuple(
        Member(
            trial=int(step.name),
            values=dict(records[int(step.name)].values),
            rank=order.index(int(step.name)) + 1,
            alone=step.alone,
            together=step.together,
        )
        for step in steps
    )


def members_verdict(members: Sequence[Member]) -> str:
    """The choice in words: ``trials 3 (rank 1), 7 (rank 5) with ...``."""
    numbers = ", ".join(f"{one.trial + 1} (rank {one.rank})" for one in members)
    gain = members[-1].together - members[0].together
    values = "; ".join(describe_values(one.values) for one in members)
    return (
        f"trials {numbers} with {values}; together {members[-1].together:.3f}, "
        f"{gain:+.3f} over the first alone"
    )
