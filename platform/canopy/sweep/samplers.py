"""Samplers: the next point of a search space from the trials that have ended and those that run.

:func:`next_point` is a pure function: the same records and the same number give the same point, so that a
sweep that was interrupted goes on as if nothing had happened.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, assert_never

from canopy.config import FieldRange, FieldValues, Space, Study, SweepConfig, grid_points
from canopy.config.sweep_fields import contains, is_read, number_type, sweepable_fields, value_of
from canopy.sweep.focal_points import sample_points
from canopy.sweep.records import TrialRecord
from canopy.sweep.warm_start import ranked_ended

if TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 5
"""Number of ended trials from which TPE takes over from random points."""
ATTEMPTS = 20
"""Draws of a point before one that was tried already is taken again."""


def next_point(
    study: Study,
    settings: SweepConfig,
    number: int,
    ended: Mapping[int, TrialRecord],
    running: Sequence[FieldValues],
    priors: Sequence[TrialRecord] = (),
) -> dict[str, Any] | None:
    """The point of trial ``number``; None when the space has no further point.

    The first point of ``tpe`` and ``random`` is the variant's own, where it lies in the space.

    Args:
        study: variant, space and sampler.
        settings: the sweep's config.
        number: number of the trial, from 0.
        ended: records of ended trials by number.
        running: points of the trials that run.
        priors: trials of earlier sweeps, with their ranks as scores, for ``tpe``.
    """
    match study.sampler:
        case "halton":
            return sample_points(settings)[number].values
        case "grid":
            points = grid_points(study)
            return points[number] if number < len(points) else None
        case "random" | "tpe":
            own = own_point(study)
            if number == 0 and own is not None:
                return own
            tried = [record.values for record in ended.values()] + list(running)
            for attempt in range(ATTEMPTS):
                point = _draw(study, settings, (number, attempt), ended, running, priors)
                if point not in tried:
                    break
            return point
        case _:
            assert_never(study.sampler)


def own_point(study: Study) -> dict[str, Any] | None:
    """The variant's own values of the fields that it reads; None where one lies outside the space."""
    read = [name for name in study.space if is_read(name, study.variant, {})]
    own = {name: value_of(study.variant, name) for name in read}
    return own if all(contains(study.space[name], value) for name, value in own.items()) else None


def _draw(
    study: Study,
    settings: SweepConfig,
    draw: tuple[int, int],
    ended: Mapping[int, TrialRecord],
    running: Sequence[FieldValues],
    priors: Sequence[TrialRecord],
) -> dict[str, Any]:
    """One point by Optuna.

    Args:
        study: variant, space and sampler.
        settings: the sweep's config.
        draw: number of the trial and of the attempt, which seed the draw.
        ended: records of ended trials by number.
        running: points of the trials that run.
        priors: trials of earlier sweeps.
    """
    import optuna

    seed = (settings.seed * 1_000_003 + draw[0] * 1_009 + draw[1]) % (1 << 32)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings(action="ignore"):  # multivariate TPE is marked experimental
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
        if study.sampler == "tpe":
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=STARTUP_TRIALS, multivariate=True, group=True, constant_liar=True, seed=seed
            )
        history = optuna.create_study(direction="maximize", sampler=sampler)
        for record in priors:
            history.add_trial(past_trial(study.space, record))
        for record in (ranked_ended(ended) if priors else ended).values():
            history.add_trial(past_trial(study.space, record))
        for values in running:
            history.add_trial(_trial(study.space, values, optuna.trial.TrialState.RUNNING))
        asked = history.ask()
        point: dict[str, Any] = {}
        for name in study.space:
            if is_read(name, study.variant, point):
                point[name] = suggest(asked, study.space, name)
    return point


def suggest(asked: optuna.Trial, space: Space, name: str) -> Any:
    """The value of the field ``name`` that Optuna suggests."""
    domain = space[name]
    if not isinstance(domain, FieldRange):
        return asked.suggest_categorical(name, domain)
    if number_type(sweepable_fields()[name]) is int:
        step = int(domain.step or 1)
        return asked.suggest_int(name, int(domain.low), int(domain.high), step=step, log=domain.log)
    return asked.suggest_float(name, domain.low, domain.high, step=domain.step, log=domain.log)


def past_trial(space: Space, record: TrialRecord) -> optuna.trial.FrozenTrial:
    """An ended trial for Optuna.

    A trial that was stopped early is a pruned one: TPE ranks it by its epochs, then by its score, below all
    that ran to the end. A failed trial is pruned before its first epoch, the worst of all.
    """
    import optuna

    state = optuna.trial.TrialState.PRUNED
    if record.score is not None and not record.stopped_early:
        state = optuna.trial.TrialState.COMPLETE
    scores = dict(enumerate(record.curve, start=1))
    if record.score is not None:
        scores.setdefault(record.epochs, record.score)
    value = record.score if state == optuna.trial.TrialState.COMPLETE else None
    return _trial(space, record.values, state, value, scores)


def _trial(
    space: Space,
    values: FieldValues,
    state: optuna.trial.TrialState,
    value: float | None = None,
    scores: Mapping[int, float] | None = None,
) -> optuna.trial.FrozenTrial:
    """A trial of Optuna; fields outside the space are left out."""
    import optuna

    known = {name: value for name, value in values.items() if name in space and contains(space[name], value)}
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params=known,
        distributions={name: _distribution(space, name) for name in known},
        intermediate_values=dict(scores or {}),
    )


def _distribution(space: Space, name: str) -> optuna.distributions.BaseDistribution:
    import optuna

    domain = space[name]
    if not isinstance(domain, FieldRange):
        return optuna.distributions.CategoricalDistribution(domain)
    if number_type(sweepable_fields()[name]) is int:
        step = int(domain.step or 1)
        return optuna.distributions.IntDistribution(int(domain.low), int(domain.high), domain.log, step)
    return optuna.distributions.FloatDistribution(domain.low, domain.high, domain.log, domain.step)
