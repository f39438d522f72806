"""Reports a round of trials while it runs: a line per epoch, a record per ended trial, gauges."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ray import tune

from canopy.config import describe_values
from canopy.runtime.console import Console
from canopy.runtime.durations import clock_duration
from canopy.runtime.metrics import set_gauge
from canopy.runtime.stage import Stage
from canopy.sweep.live_table import LiveTrials, RunningTrial
from canopy.sweep.records import TrialRecord, trial_name
from canopy.sweep.schedulers import REPLAYED, TIME
from canopy.sweep.trials import TrialContext


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
        self.epochs_of, self.reference_epochs = context.epochs_of, context.reference_epochs
        self.count = count
        self.log_fields, self.variant = context.log_fields, context.variant.name
        self.running: dict[int, dict[int, dict[str, Any]]] = {}
        """Epochs by number, then by epoch, of each running trial."""
        self.points: dict[int, dict[str, Any]] = {}
        """Values of each trial that has started, by number."""
        self.live = LiveTrials(console)
        self.started = time.monotonic()
        self.trained_epochs = 0.0
        """Epochs of this start, each counted by its cost."""

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        """Count a trial as running."""
        self.running.setdefault(self.number(trial), {})
        self.points[self.number(trial)] = self.values(trial)
        self.set_gauges()
        self.show()

    def on_trial_result(  # type: ignore[override]  # (Tune passes keywords)
        self, *, trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Print the result of an epoch."""
        self.running.setdefault(self.number(trial), {})[int(result["epoch"])] = result
        if result.get(REPLAYED):
            return
        values = self.values(trial)
        self.trained_epochs += self.reference_epochs(values, 1)
        epoch = f"epoch {result['epoch']}/{self.epochs_of(values)}"
        speed, score = f"{result['images_per_s']:,.0f} images/s", f"val score {result['score']:.3f}"
        speed += f" on {result['workers']} workers" if "workers" in result else ""
        self.console.say(Stage.SWEEP, f"{self.name(trial)}: {epoch}, {speed}, {score}")
        self.show()

    def on_experiment_end(self, **_: Any) -> None:  # type: ignore[override]
        """Remove the live table."""
        self.live.stop()

    def show(self) -> None:
        """Show the running trials in a terminal."""
        rows = []
        for number, epochs in self.running.items():
            values = self.points.get(number, {})
            last = epochs[max(epochs)] if epochs else {}
            rows.append(
                RunningTrial(
                    number,
                    describe_values(values),
                    max(epochs, default=0),
                    self.epochs_of(values),
                    last.get("score"),
                    last.get("images_per_s"),
                )
            )
        self.live.show(rows, self.standing())

    def on_trial_complete(self, *, trial: Any, **_: Any) -> None:  # type: ignore[override]
        """Record a trial that ran to its end or was stopped early."""
        score, epochs = trial.last_result["score"], int(trial.last_result["epoch"])
        early = epochs < self.epochs_of(self.values(trial))
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
        """Write the record of a trial and print the state of the round."""
        number = self.number(trial)
        self.records.write(number, record)
        self.checkpoint(number).remove()
        self.running.pop(number, None)
        self.console.say(Stage.SWEEP, f"{self.name(trial)}: {text}")
        self.set_gauges()
        if self.count > 1:
            self.console.say(Stage.SWEEP, self.standing())
        self.show()

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
        """The state of the round in one line: trials by state, the best so far, the time left."""
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
        spent = sum(self.reference_epochs(one.values, one.epochs) for one in ended)
        if left and self.trained_epochs and spent:
            # Epochs still to train, if the others are stopped as often as those that have ended.
            begun = sum(
                epochs[max(epochs)].get(TIME, max(epochs)) for epochs in self.running.values() if epochs
            )
            ahead = left * spent / len(ended) - begun
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
