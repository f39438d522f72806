"""The runs of the finalists at full length: their points, and their comparison with the untouched default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.config import FieldValues
from canopy.errors import StageError
from canopy.sweep.objective import Objective
from canopy.sweep.selection import Finalist, verdict
from canopy.sweep.stored_logits import read_probs
from canopy.sweep.trials import TrialContext

RESAMPLES = 1000
"""Number of bootstrap resamples of the rows."""
MAP_STEPS = 300_000_000
"""Maximum number of row x class x resample steps of the mAP on resampled rows of one run."""


def judge_runs(
    candidates: Sequence[FieldValues],
    seeds: int,
    context: TrialContext,
    objective: Objective,
    targets_NK: NDArray[np.uint8],
) -> list[Finalist]:
    """Compare the runs of the finalists with those of the default.

    Args:
        candidates: the points, that of the default first and empty.
        seeds: number of seeds of each.
        context: inputs of the runs.
        objective: what is compared.
        targets_NK: targets of the validation rows.

    Raises:
        StageError: when a run of the default failed, or the logits of a run cannot be read.
    """
    steps = targets_NK.size
    resamples = RESAMPLES if objective.name != "map" else max(200, min(RESAMPLES, MAP_STEPS // steps))
    scores: list[list[float]] = []
    errors: list[str | None] = []
    resampled_CB = np.full((len(candidates), resamples), np.nan)
    for c in range(len(candidates)):
        numbers = range(c * seeds, (c + 1) * seeds)
        errors.append(next(filter(None, (run_error(context, number) for number in numbers)), None))
        runs = [] if errors[-1] else [read_probs(context.records, number) for number in numbers]
        scores.append([objective.value(targets_NK, probs_NK) for probs_NK in runs])
        if runs:
            drawn = [objective.resampled(targets_NK, probs_NK, resamples) for probs_NK in runs]
            resampled_CB[c] = np.mean(drawn, axis=0)
    if errors[0] is not None:
        raise StageError(f"sweep: the untouched {context.variant.name} failed to train: {errors[0]}")
    return verdict(candidates, scores, resampled_CB, errors)


@dataclass(frozen=True)
class FinalPoints:
    """Points of the finalists' runs: every candidate with every seed; ``seed`` is one of the values.

    Args:
        candidates: points, that of the default first and empty.
        seeds: number of seeds.
        first: seed of the variant; the runs take those after it.
    """

    candidates: tuple[FieldValues, ...]
    seeds: int
    first: int

    def __call__(self, number: int, _ended: object, _running: object) -> dict[str, Any]:
        """The point of run ``number``."""
        candidate, seed = divmod(number, self.seeds)
        return {**self.candidates[candidate], "seed": self.first + 1 + seed}


def run_error(context: TrialContext, number: int) -> str | None:
    """Why a final run failed; None when it has finished."""
    record = context.records.read(number)
    return "it did not end" if record is None else record.error
