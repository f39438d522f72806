"""Warm start: trials of earlier sweeps as prior trials of the sampler, also those of other data sets.

Scores of different data sets or objectives cannot be compared. So each earlier search is ranked on its own:
a trial's score becomes the share of the search's complete trials that it beats (ties count half), and while
there are prior trials the search's own ones are ranked the same way. TPE looks at nothing but the order of
the scores. Prior trials guide where points are drawn and are nothing else: they are no candidates.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import rankdata

from canopy.config import Experiment, FieldRange, FieldValues, Space, Study, describe_values
from canopy.config.sweep_fields import contains, number_type, sweepable_fields
from canopy.errors import InputError, RunDirError
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.sweep.records import TrialRecord
from canopy.sweep.selection import is_complete

logger = logging.getLogger(__name__)
NAMED = 3
"""Number of trials that a warning names."""


@dataclass(frozen=True)
class EarlierSearch:
    """The trials of one search of an earlier run.

    Args:
        run: address of its run directory.
        variant: name of the swept variant; empty in runs of former versions.
        trials: all trials.
    """

    run: str
    variant: str
    trials: tuple[TrialRecord, ...]


def read_searches(run: str) -> list[EarlierSearch]:
    """The searches of the run directory ``run``, a path or URI.

    Raises:
        RunDirError: when it holds no finished sweep, or its trials cannot be read.
        StorageError: when the store cannot be read.
    """
    path = RunDir(run).path(Stage.SWEEP, "trials.json")
    thing, need = f"sweep.warm_start {files.shown(run)}", "must be a run directory with a finished sweep"
    try:
        content = files.read_json(path)
        found: dict[str, list[TrialRecord]] = {}
        for entry in content:
            trial = dict(entry)
            name = str(trial.pop("variant", ""))
            trial.pop("number", None)
            found.setdefault(name, []).append(TrialRecord.from_json(trial))
    except (FileNotFoundError, NotADirectoryError):
        raise RunDirError(thing, need, "no sweep/trials.json", "Name another run, or leave it out.") from None
    except (InputError, TypeError, ValueError) as error:
        raise RunDirError(thing, need, f"unreadable trials ({error})", "Name another run.") from error
    if not any(is_complete(trial) for trials in found.values() for trial in trials):
        raise RunDirError(thing, need, "no trial that ran to its end", "Name another run, or leave it out.")
    return [EarlierSearch(run, name, tuple(trials)) for name, trials in found.items()]


def prior_trials(study: Study, searches: Sequence[EarlierSearch]) -> tuple[TrialRecord, ...]:
    """The complete trials of earlier searches that say something about the space of ``study``.

    Each has the fields that both spaces share, and its rank within its search as score. Of a run that swept a
    variant of the same name, that search alone is taken; of any other run, all searches. Left out, with a
    warning, are fields that the space does not have, and trials with a value beyond the space.
    """
    named = {one.run for one in searches if one.variant == study.name}
    priors: list[TrialRecord] = []
    for search in searches:
        if search.run not in named or search.variant == study.name:
            priors += _priors_of(study, search)
    return tuple(priors)


def _priors_of(study: Study, search: EarlierSearch) -> list[TrialRecord]:
    """The prior trials of one search."""
    complete = [trial for trial in search.trials if is_complete(trial)]
    known = {name for trial in complete for name in trial.values}
    other = sorted(known - set(study.space))
    if other and known & set(study.space):
        _warn(study, search, f"these fields are not searched here and left out: {', '.join(other)}")
    elif other:
        _warn(study, search, f"no trial is taken, because no field is shared: it searched {', '.join(other)}")
        return []
    taken, beyond = [], []
    for trial in by_rank(complete):
        shared = {name: value for name, value in trial.values.items() if name in study.space}
        fits = all(is_offered(study.space, name, value) for name, value in shared.items())
        if fits and shared:
            taken.append(replace(trial, values=shared, curve=()))
        elif shared:
            beyond.append(shared)
    if beyond:
        examples = "; ".join(describe_values(values) for values in beyond[:NAMED])
        more = f"; and {len(beyond) - NAMED} more" if len(beyond) > NAMED else ""
        _warn(study, search, f"{len(beyond)} trials lie beyond the space and are left out: {examples}{more}")
    return taken


def _warn(study: Study, search: EarlierSearch, text: str) -> None:
    variant = f", variant {search.variant}" if search.variant else ""
    logger.warning("warm start of %s from %s%s: %s", study.name, files.shown(search.run), variant, text)


def by_rank(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Complete trials of one search with their rank as score: the share of them that a trial beats."""
    if not trials:
        return []
    ranks_N = (rankdata([trial.score for trial in trials]) - 0.5) / len(trials)
    return [replace(trial, score=float(rank)) for trial, rank in zip(trials, ranks_N, strict=True)]


def ranked_ended(ended: Mapping[int, TrialRecord]) -> dict[int, TrialRecord]:
    """The ended trials of a search, the complete ones with their rank as score."""
    complete = {number: record for number, record in ended.items() if is_complete(record)}
    scores = dict(zip(complete, by_rank(list(complete.values())), strict=True))
    return {number: scores.get(number, record) for number, record in ended.items()}


def is_offered(space: Space, name: str, value: Any) -> bool:
    """Whether the sampler could have drawn ``value`` for the field ``name``."""
    domain = space[name]
    if not contains(domain, value):
        return False
    if not isinstance(domain, FieldRange):
        return any(value == choice and type(value) is type(choice) for choice in domain)
    step = domain.step
    if number_type(sweepable_fields()[name]) is int and not domain.log:
        step = step or 1
    if step is None:
        return not (number_type(sweepable_fields()[name]) is int and value % 1)
    steps = (value - domain.low) / step
    return bool(np.isclose(steps, round(steps)))


def warm_starts(config: Experiment) -> dict[str, tuple[TrialRecord, ...]]:
    """The prior trials of each swept variant by name; empty without ``sweep.warm_start``.

    Raises:
        RunDirError: see :func:`read_searches`.
    """
    if not config.sweep.warm_start:
        return {}
    searches = [one for run in config.sweep.warm_start for one in read_searches(run)]
    return {study.name: prior_trials(study, searches) for study in config.sweep_studies}


def warm_start_text(priors: Sequence[TrialRecord]) -> str:
    """What the sampler knows before the first trial, in words."""
    fields = list(dict.fromkeys(name for trial in priors for name in trial.values))
    best: FieldValues = max(priors, key=lambda trial: trial.score or 0.0).values if priors else {}
    if not priors:
        return "warm start: no earlier trial fits the space"
    return (
        f"warm start from {len(priors)} earlier trials of {', '.join(fields)}; best {describe_values(best)}"
    )
