"""A round of trials on Ray Tune: draws points, stops bad trials early, goes on after a restart.

The search is one round; the runs of the finalists are another.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from canopy.config import FieldValues, derive
from canopy.data.catalogue import Catalogue
from canopy.errors import InputError
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage
from canopy.runtime.task_names import task_name
from canopy.storage import files
from canopy.sweep.nested import WAITING, concurrent_trials, remove_storage, run_nested_trial
from canopy.sweep.records import TrialRecord, TrialRecords
from canopy.sweep.schedulers import make_scheduler
from canopy.sweep.trial_reporter import TrialReporter
from canopy.sweep.trials import TrialContext, run_trial, search_parameters, trial_resources
from canopy.train.fleet.resources import cluster_capacity

logger = logging.getLogger(__name__)

NextPoint = Callable[[int, dict[int, TrialRecord], list[FieldValues]], dict[str, Any] | None]
"""Takes a trial's number, the records of ended trials and the points of running ones; gives its point, or
None when there is no further point."""


@dataclass
class RoundClock:
    """Time spent in a round over all its starts.

    Args:
        path: file with the seconds of former starts.
        limit_s: seconds after which no further trial begins; None: no limit.
    """

    path: str
    limit_s: float | None
    started: float = field(default_factory=time.monotonic)
    former_s: float = 0.0

    def load(self) -> None:
        """Read the seconds of former starts."""
        try:
            self.former_s = float(files.read_json(self.path)["seconds"])
        except FileNotFoundError:
            self.former_s = 0.0
        except (InputError, TypeError, KeyError, ValueError) as error:
            logger.warning("unreadable time of a sweep, taken as 0: %s", error)

    @property
    def seconds(self) -> float:
        """Seconds of all starts until now."""
        return self.former_s + time.monotonic() - self.started

    @property
    def is_over(self) -> bool:
        """Whether the time is used up."""
        return self.limit_s is not None and self.seconds >= self.limit_s

    def store(self) -> None:
        """Write the seconds of all starts."""
        if self.limit_s is not None:
            files.write_json(self.path, {"seconds": round(self.seconds, 1)})


class PointSearcher(Searcher):
    """Gives Ray Tune the points of the trials that no earlier start has finished.

    A trial whose point was drawn by an earlier start keeps it.

    Args:
        numbers: numbers of the trials to run, in order.
        next_point: draws a point.
        records: records of the round.
        clock: time spent in the round.
    """

    def __init__(
        self, numbers: list[int], next_point: NextPoint, records: TrialRecords, clock: RoundClock
    ) -> None:
        super().__init__(metric="score", mode="max")
        self._numbers, self._next_point, self._records, self._clock = numbers, next_point, records, clock
        self._running: dict[str, FieldValues] = {}
        self._begun: list[int] = []

    @property
    def remaining(self) -> int:
        """Number of trials that have not begun."""
        return len(self._numbers)

    def suggest(self, trial_id: str) -> Any:
        """Ray Tune's parameters of the next trial, or ``Searcher.FINISHED``."""
        if not self._numbers:
            return Searcher.FINISHED
        self._records.refresh(self._begun)
        if self._clock.is_over and self._records.ended:
            return Searcher.FINISHED
        number = self._numbers[0]
        values = self._records.read_point(number)
        if values is None:
            values = self._next_point(number, self._records.ended, list(self._running.values()))
            if values is None:
                return Searcher.FINISHED
            self._records.write_point(number, values)
        self._begun.append(self._numbers.pop(0))
        self._running[trial_id] = values
        return search_parameters(number, values)

    def on_trial_complete(self, trial_id: str, **_: Any) -> None:  # type: ignore[override]
        """Forget a trial that has ended; the reporter of the round writes its record."""
        self._running.pop(trial_id, None)
        self._clock.store()

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: a restart reads the records."""
        Path(checkpoint_path).write_text("{}")

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing."""


def run_round(
    context: TrialContext,
    catalogue: Catalogue,
    count: int,
    next_point: NextPoint,
    console: Console,
    only: Sequence[int] | None = None,
) -> list[TrialRecord]:
    """Run the trials that no earlier start has finished.

    Args:
        context: inputs that all trials share.
        catalogue: the run's catalogue.
        count: maximum number of trials.
        next_point: draws the point of a trial.
        console: prints a line per trial and epoch.
        only: numbers of the trials to run, also of those that have ended, whose records stay until they
            are replaced; None: all that have not.

    Returns:
        The records of all trials that have ended, in order.
    """
    settings, records = context.settings, context.records
    records.load(count)
    if context.keep_logits:
        for number, record in records.ended.items():
            if not record.stopped_early and not files.exists(context.logits_path(number)):
                records.forget(number)  # it ran when nobody needed them
    missing = list(only or ())
    if only is None:
        missing = [number for number in range(count) if number not in records.ended]
    done = f"; {len(records.ended)} done already" if records.ended else ""
    what = "final runs" if context.final else "trials"
    console.say(
        Stage.SWEEP,
        f"{count} {what} of {context.variant.name}, up to {context.epochs} epochs, "
        f"{settings.concurrent} at a time{done}",
    )
    if missing:
        begun = [number for number in missing if records.read_point(number) is not None]
        numbers = begun + [number for number in missing if number not in begun]
        limit_s = None if context.unstopped or settings.minutes is None else settings.minutes * 60
        clock = RoundClock(records.file("clock.json"), limit_s)
        clock.load()
        run_trials(
            what, context, catalogue, PointSearcher(numbers, next_point, records, clock), count, console
        )
        records.reload(missing)  # Ray Tune has a copy of the reporter, which wrote them
    found = [records.read(number) for number in range(count)]
    return [record for record in found if record is not None]


def run_trials(
    what: str,
    context: TrialContext,
    catalogue: Catalogue,
    searcher: PointSearcher,
    count: int,
    console: Console,
) -> None:
    """Run the trials of ``searcher`` on Ray Tune.

    Args:
        what: what the trials are, for Ray's dashboard.
        context: inputs that all trials share.
        catalogue: the run's catalogue.
        searcher: gives the points.
        count: number of trials of the round, those included that have ended.
        console: prints a line per trial and epoch.
    """
    scale = context.variant.scale
    nested = scale.workers > 1
    resources = tune.PlacementGroupFactory([WAITING if nested else trial_resources(scale)])
    trainable = tune.with_parameters(
        named_trial(what, context), context=context, catalogue=None if nested else catalogue
    )
    trainable, missing = tune.with_resources(trainable, resources), searcher.remaining
    reporter = TrialReporter(console, context, count)
    # Tune pickles its own state: it goes to a temporary folder, and only our records are kept.
    with tempfile.TemporaryDirectory() as storage:
        make_tuner(trainable, context, searcher, missing, storage, reporter).fit()
    if nested:
        remove_storage(context.records)


def named_trial(what: str, context: TrialContext) -> Callable[..., None]:
    """:func:`canopy.sweep.trials.run_trial` under the name that Ray's dashboard shows for its actors."""

    def run(search: dict[str, Any], context: TrialContext, catalogue: Catalogue | None) -> None:
        if catalogue is None:
            run_nested_trial(search, context)
        else:
            run_trial(search, context, catalogue)

    owner = {**context.log_fields, "variant": context.variant.name}
    run.__name__ = task_name(f"sweep {what}", owner).replace("/", "_")
    return run


def make_tuner(
    trainable: Any,
    context: TrialContext,
    searcher: Searcher,
    count: int,
    storage: str,
    reporter: TrialReporter,
) -> tune.Tuner:
    """Ray Tune's tuner for ``count`` trials.

    A trial with one worker trains in its own process: a plain Tune trial starts in seconds, a nested trainer
    in tens of seconds.

    Args:
        trainable: :func:`canopy.sweep.trials.run_trial` with its parameters and resources.
        context: inputs that all trials share.
        searcher: draws the points.
        count: maximum number of trials.
        storage: folder for Tune's own files.
        reporter: callback that prints and records.
    """
    settings, scale = context.settings, context.variant.scale
    nested, concurrent = scale.workers > 1, settings.concurrent
    if nested:
        concurrent = concurrent_trials(scale, concurrent, cluster_capacity(context.fleet))
    stopping = derive(settings, scheduler="none") if context.unstopped else settings
    scheduler = make_scheduler(
        stopping, context.epochs, context.records.ended.items(), context.reference_epochs
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=count,
            max_concurrent_trials=concurrent,
            reuse_actors=not nested,  # a process that waits for Ray Train cannot be reset
            search_alg=searcher,
            scheduler=scheduler,
            trial_dirname_creator=lambda trial: str(trial.trial_id),  # the trainable's name may be long
        ),
        run_config=tune.RunConfig(
            name=Stage.SWEEP.value,
            storage_path=storage,
            verbose=0,
            callbacks=[reporter],
            failure_config=tune.FailureConfig(max_failures=1),
        ),
    )
