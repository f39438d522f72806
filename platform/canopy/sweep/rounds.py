"""A round of trials on Ray Tune: draws points, stops bad trials early, records every trial that ends.

The search is one round; the runs of the finalists are another.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from canopy.config import FieldValues, derive
from canopy.data.catalogue import Catalogue
from canopy.errors import InputError
from canopy.runtime.console import Console
from canopy.runtime.durations import clock_duration
from canopy.runtime.metrics import set_gauge
from canopy.runtime.stage import Stage
from canopy.runtime.task_names import task_name
from canopy.storage import files
from canopy.sweep.records import TrialRecord, TrialRecords, trial_name
from canopy.sweep.schedulers import REPLAYED, make_scheduler
from canopy.sweep.trials import TrialContext, run_trial, search_parameters, trial_resources

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
        """Forget a trial that has ended; its record is written by :class:`TrialReporter`."""
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
) -> list[TrialRecord]:
    """Run the trials that no earlier start has finished.

    Args:
        context: inputs that all trials share.
        catalogue: the run's catalogue.
        count: maximum number of trials.
        next_point: draws the point of a trial.
        console: prints a line per trial and epoch.

    Returns:
        The records of all trials that have ended, in order.
    """
    settings, scale, records = context.settings, context.variant.scale, context.records
    records.load(count)
    missing = [number for number in range(count) if number not in records.ended]
    done = f"; {count - len(missing)} done already" if len(missing) < count else ""
    what = "final runs" if context.final else "trials"
    console.say(
        Stage.SWEEP,
        f"{count} {what} of {context.variant.name}, up to {context.epochs} epochs, "
        f"{settings.concurrent} at a time{done}",
    )
    if missing:
        begun = [number for number in missing if records.read_point(number) is not None]
        numbers = begun + [number for number in missing if number not in begun]
        minutes = None if context.final or settings.minutes is None else settings.minutes * 60
        clock = RoundClock(records.file("clock.json"), minutes)
        clock.load()
        resources = tune.PlacementGroupFactory([trial_resources(scale)])
        trainable = tune.with_parameters(named_trial(what, context), context=context, catalogue=catalogue)
        reporter = TrialReporter(console, context, count)
        searcher = PointSearcher(numbers, next_point, records, clock)
        # Tune pickles its own state: it goes to a temporary folder, and only our records are kept.
        with tempfile.TemporaryDirectory() as storage:
            trainable = tune.with_resources(trainable, resources)
            make_tuner(trainable, context, searcher, len(numbers), storage, reporter).fit()
    found = [records.read(number) for number in range(count)]
    return [record for record in found if record is not None]


def named_trial(what: str, context: TrialContext) -> Callable[..., None]:
    """:func:`canopy.sweep.trials.run_trial` under the name that Ray's dashboard shows for its actors."""

    def run(search: dict[str, Any], context: TrialContext, catalogue: Catalogue) -> None:
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

    A trial has one worker and trains in its own process: a plain Tune trial starts in seconds, a nested
    trainer in tens of seconds.

    Args:
        trainable: :func:`canopy.sweep.trials.run_trial` with its parameters and resources.
        context: inputs that all trials share.
        searcher: draws the points.
        count: maximum number of trials.
        storage: folder for Tune's own files.
        reporter: callback that prints and records.
    """
    settings = context.settings
    # A final run is compared over all its epochs, so none is stopped.
    stopping = derive(settings, scheduler="none") if context.final else settings
    scheduler = make_scheduler(stopping, context.epochs, context.records.ended.items())
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=count,
            max_concurrent_trials=settings.concurrent,
            reuse_actors=True,
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


class TrialReporter(tune.Callback):
    """Prints a line per trial and epoch, and writes a record per ended trial.

    Args:
        console: receives the lines.
        context: inputs that all trials share.
        count: maximum number of trials.
    """

    def __init__(self, console: Console, context: TrialContext, count: int) -> None:
        self.console = console
        self.records, self.checkpoint = context.records, context.checkpoint
        self.epochs, self.count = context.epochs, count
        self.log_fields, self.variant = context.log_fields, context.variant.name
        self.running: dict[int, dict[int, dict[str, Any]]] = {}
        """Epochs by number, then by epoch, of each running trial."""
        self.failed: set[int] = set()
        self.started = time.monotonic()
        self.trained_epochs = 0

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        """Count a trial as running."""
        self.running.setdefault(self.number(trial), {})
        self.set_gauges()

    def on_trial_result(  # type: ignore[override]  # (Tune passes keywords)
        self, *, trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Print the result of an epoch."""
        self.running.setdefault(self.number(trial), {})[int(result["epoch"])] = result
        if result.get(REPLAYED):
            return
        self.trained_epochs += 1
        epoch = f"epoch {result['epoch']}/{self.epochs}"
        speed, score = f"{result['images_per_s']:,.0f} images/s", f"val score {result['score']:.3f}"
        self.console.say(Stage.SWEEP, f"{self.name(trial)}: {epoch}, {speed}, {score}")

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        """Record a trial that ran to its end or was stopped early."""
        score, epochs = trial.last_result["score"], int(trial.last_result["epoch"])
        early = epochs < self.epochs
        history = [result for _, result in sorted(self.running.get(self.number(trial), {}).items())]
        record = TrialRecord(
            self.values(trial),
            score=score,
            epochs=epochs,
            stopped_early=early,
            error=None,
            curve=tuple(float(result["score"]) for result in history),
            seconds=float(sum(result.get("seconds", 0.0) for result in history)),
        )
        self.end(trial, record, "stopped early" if early else "finished")

    def on_trial_error(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        """Record a trial that failed for good."""
        reason = last_error_line(trial)
        record = TrialRecord(self.values(trial), score=None, epochs=0, stopped_early=False, error=reason)
        self.end(trial, record, f"FAILED: {reason}")

    def end(self, trial: Any, record: TrialRecord, text: str) -> None:
        """Write the record of a trial and print where the round stands."""
        number = self.number(trial)
        self.records.write(number, record)
        self.checkpoint(number).remove()
        self.running.pop(number, None)
        self.console.say(Stage.SWEEP, f"{self.name(trial)}: {text}")
        self.set_gauges()
        if self.count > 1:
            self.console.say(Stage.SWEEP, self.standing())

    def set_gauges(self) -> None:
        """Set the gauges of the trials by their state and of the best score."""
        tags = {"run": self.log_fields.get("run", ""), "variant": self.variant}
        ended = list(self.records.ended.values())
        failed = sum(one.error is not None for one in ended)
        stopped = sum(one.stopped_early for one in ended)
        counts = {"failed": failed, "stopped early": stopped, "finished": len(ended) - failed - stopped}
        for state, number in {**counts, "running": len(self.running)}.items():
            set_gauge("canopy_sweep_trials", number, state=state, **tags)
        scores = [one.score for one in ended if one.score is not None and not one.stopped_early]
        if scores:
            set_gauge("canopy_sweep_best_score", max(scores), **tags)

    def standing(self) -> str:
        """Where the round stands in one line: trials by state, the best so far, the time left."""
        ended = list(self.records.ended.values())
        stopped, failed = sum(one.stopped_early for one in ended), sum(one.error is not None for one in ended)
        complete = [one for one in ended if one.score is not None and not one.stopped_early]
        parts = [f"{len(ended)} of {self.count} done", f"{len(self.running)} running"]
        parts += [f"{stopped} stopped early"] * bool(stopped) + [f"{failed} failed"] * bool(failed)
        if complete:
            best = max(complete, key=lambda one: one.score or 0.0)
            parts.append(f"best so far {best.score:.3f}")
        left = self.count - len(ended)
        passed = time.monotonic() - self.started
        spent = sum(one.epochs for one in ended)
        if left and self.trained_epochs and spent:
            # Epochs still to train, if the others are stopped as often as those that have ended.
            ahead = left * spent / len(ended) - sum(len(one) for one in self.running.values())
            parts.append(f"about {clock_duration(max(ahead, 0) * passed / self.trained_epochs)} left")
        return ", ".join(parts)

    def number(self, trial: Any) -> int:
        """The trial's number."""
        number: int = trial.config["number"]
        return number

    def values(self, trial: Any) -> dict[str, Any]:
        """The trial's point of the search space."""
        values: dict[str, Any] = json.loads(trial.config["values"])
        return values

    def name(self, trial: Any) -> str:
        """The trial's name on the console."""
        return trial_name(self.number(trial), self.count, self.values(trial))


def last_error_line(trial: Any) -> str:
    """The last line of a failed trial's traceback."""
    # The text file is read in Tune's local folder; Tune's other copy of the error is a pickle.
    lines = Path(trial.error_file).read_text().split("\n") if trial.error_file else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "its process ended")
