"""Finds the missing trainings, runs them in parallel, and derives rows and gains from their predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from jobs.benchmarks.ablation.data import AblationData
from jobs.benchmarks.ablation.derived import derive_predictions
from jobs.benchmarks.ablation.records import CurrentRecords, Job, Line, Records, essentials
from jobs.benchmarks.ablation.rows import COMBINED, ROWS, WITHOUT, DataName, Row, ScaleName, Setting, setting
from jobs.benchmarks.ablation.runs import RowPredictions, figures, per_class, train_row
from jobs.benchmarks.ablation.tables import FIGURE_TEXTS, gain, is_winner, markdown, run_command

from canopy.cli import canopy_error
from canopy.data.catalogue import SPLITS
from canopy.errors import CanopyError, InputError, StageError
from canopy.runtime.console import Console

STAGE = "ablation"


def section(records: Records) -> str:
    """The Markdown section of one file of figures.

    Raises:
        InputError: when the file has no figures, or none of the current settings.
    """
    line = records.newest("setting")
    if line is None:
        raise InputError(str(records.path), "must hold the figures of a run", "none", "Use `run` first.")
    current = CurrentRecords(records, setting(line["data"], line["scale"]))
    if any(current.rate(role) is None for role in current.setting.backbones):
        problem, remedy = "must hold figures of the current settings", "Use `run` again."
        raise InputError(str(records.path), problem, "figures of other settings", remedy)
    gains = {name: found for name, row in ROWS.items() if (found := current.gain(row)) is not None}
    baseline = ROWS["baseline"]
    runs = [found for seed in current.seeds(baseline) if (found := current.run(baseline, seed)) is not None]
    return markdown(line, runs, gains, current.failures())


@dataclass
class Study:
    """An ablation on one data set.

    Args:
        name: names of the data set and the scale.
        setting: data, baseline and budget.
        data: prepared data.
        records: file of figures.
        console: console for progress.
        parallel: number of concurrent trainings.
    """

    name: tuple[DataName, ScaleName]
    setting: Setting
    data: AblationData
    records: Records
    console: Console
    parallel: int

    def __post_init__(self) -> None:
        self.current = CurrentRecords(self.records, self.setting)

    def find_rates(self) -> None:
        """Test all learning rates without a result, at one seed, and report the ones with the best mAP."""
        jobs = [
            self.current.rate_job(role, rate)
            for role in self.setting.backbones
            for rate in self.setting.rates
        ]
        missing = [job for job in jobs if self.records.find("lr", job.fingerprint) is None]
        self.train(missing)
        rates = {role: self.current.rate(role) for role in self.setting.backbones}
        chosen = ", ".join(f"{self.setting.backbones[role]} {rate:g}" for role, rate in rates.items())
        self.console.say(STAGE, f"learning rates: {chosen}")

    def run(self, names: Iterable[str], seeds: int) -> None:
        """Train the missing rows, and the rows that they are compared with, seed by seed.

        Raises:
            StageError: when trainings failed.
        """
        rows = self.complete(names)
        trained = [row for row in rows if not row.of]
        jobs = [self.current.job(row, seed) for seed in range(seeds) for row in trained]
        missing = [job for job in jobs if self.is_missing(job, rows)]
        self.console.say(STAGE, f"{len(jobs)} trainings, {len(jobs) - len(missing)} done already")
        self.record_derived(rows)
        failed = self.train(missing, rows)
        self.write_setting()
        if failed:
            raise StageError(f"{len(failed)} of {len(missing)} trainings failed; the first: {failed[0]}")

    def complete(self, names: Iterable[str]) -> list[Row]:
        """The rows, the rows they need, and the rows derived from them, in the order of the table."""
        wanted = {"baseline", *names}
        for name in list(wanted):
            wanted |= {*ROWS[name].of, *({ROWS[name].against} & ROWS.keys())}
        wanted |= {row.name for row in ROWS.values() if row.of and set(row.of) <= wanted}
        return [row for row in ROWS.values() if row.name in wanted]

    def is_missing(self, job: Job, rows: Sequence[Row]) -> bool:
        """Whether a job must be trained: it has no line, or predictions are missing and needed."""
        if self.records.find("run", job.fingerprint) is None:
            return True
        if self.predictions_path(job.fingerprint).exists():
            return False
        users = [
            row for row in rows if job.row.name in {row.name, row.against, *row.of} and row.name != "baseline"
        ]
        gains = [self.current.gain(row) for row in users]
        return not all(line is not None and job.variant.seed in line["seeds"] for line in gains)

    def predictions_path(self, key: str) -> Path:
        """The file of predictions for the fingerprint ``key``."""
        return self.data.cache / f"{key}.npz"

    def train(self, jobs: Sequence[Job], rows: Sequence[Row] = ()) -> list[str]:
        """Run trainings in parallel and record each result at once; return the errors of failed ones."""
        failed = []
        for number, (job, outcome) in enumerate(self.outcomes(jobs), 1):
            lr, seed = job.variant.optim.lr, job.variant.seed
            what = f"{number}/{len(jobs)} {job.row.name}, seed {seed}, rate {lr:g}"
            head = {"row": job.row.name, "seed": seed, "fingerprint": job.fingerprint, "lr": lr}
            if isinstance(outcome, CanopyError):
                failed.append(str(outcome))
                # A failed learning rate counts as tested. A failed row is trained again by the next run.
                kind = {"kind": "lr", "val_map": 0.0} if job.kind == "lr" else {"kind": "failed"}
                self.records.add({**kind, **head, "error": str(outcome)})
                self.console.say(STAGE, f"{what}: FAILED: {outcome}")
                continue
            line = {"kind": job.kind, **head, "config": essentials(job.variant), **outcome}
            self.records.add(line | (self.measured(job.fingerprint) if job.kind == "run" else {}))
            seconds, score = outcome["seconds"], outcome["val_map"]
            self.console.say(STAGE, f"{what}: {seconds:.0f} s, validation mAP {score:.3f}")
            self.record_derived(rows)
        return failed

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Line | CanopyError]]:
        """Yield each job with its result or its error, in the order in which they finish."""
        waiting, running = list(jobs), dict[Any, Job]()
        data = ray.put(self.data)
        scale = self.setting.baseline.scale
        task = ray.remote(num_cpus=scale.cpus_per_worker, num_gpus=scale.gpus_per_worker)(train_row)
        while waiting or running:
            while waiting and len(running) < self.parallel:
                job = waiting.pop(0)
                report, symmetries = job.kind == "run", job.row.name == "baseline"
                running[task.remote(job.variant, data, job.fingerprint, symmetries, report)] = job
            done = ray.wait(list(running))[0][0]
            job = running.pop(done)
            try:
                outcome = ray.get(done)
            except Exception as error:
                outcome = canopy_error(error)
                if outcome is None:
                    raise
            yield job, outcome

    def measured(self, key: str) -> Line:
        """The figures on the test rows from stored predictions."""
        targets_NK, predicted = self.data.targets("test"), RowPredictions.read(self.predictions_path(key))
        names = self.data.catalogue.labels.names
        return {
            "figures": figures(targets_NK, predicted),
            "per_class_f1": per_class(targets_NK, predicted, names),
        }

    def record_derived(self, rows: Sequence[Row]) -> None:
        """Record all derived rows and gains for which predictions are stored."""
        for row in rows:
            for seed in self.current.seeds(ROWS["baseline"]):
                if row.of and self.current.run(row, seed) is None and self.has_members(row, seed):
                    self.record_row(row, seed)
        for row in rows:
            if row.name != "baseline":
                self.compare(row)

    def has_members(self, row: Row, seed: int) -> bool:
        """Whether the predictions of all members of a row are stored."""
        members = [ROWS[name] for name in row.of]
        return all(
            self.current.run(member, seed) is not None
            and self.predictions_path(self.current.key(member, seed)).exists()
            for member in members
        )

    def record_row(self, row: Row, seed: int) -> None:
        """Record the figures of a row without training."""
        key = self.current.key(row, seed)
        members = {name: self.predictions_path(self.current.key(ROWS[name], seed)) for name in row.of}
        derive_predictions(row, members, self.data).write(self.predictions_path(key))
        line = {"kind": "run", "row": row.name, "seed": seed, "fingerprint": key, "of": list(row.of)}
        self.records.add({**line, **self.measured(key)})

    def compare(self, row: Row) -> None:
        """Record the gain of a row if it now covers more seeds than its last line."""
        pairs = self.pairs(row)
        known = self.current.gain(row)
        if len(pairs) <= (0 if known is None else len(known["seeds"])):
            return
        mine, theirs = zip(*pairs.values(), strict=True)
        values = [np.array([self.values(key) for key in keys]) for keys in (mine, theirs)]
        drawn = [
            np.array([RowPredictions.read(self.predictions_path(key)).resampled_FB for key in keys])
            for keys in (mine, theirs)
        ]
        others = {self.current.against(row, seed).name for seed in pairs}
        self.records.add(
            {
                "kind": "gain",
                "row": row.name,
                "against": sorted(others),
                "seeds": list(pairs),
                "fingerprint": self.current.gain_key(row, list(pairs)),
                "cost": self.cost(list(pairs.values())),
                "figures": gain(values[0], values[1], drawn[0], drawn[1], tuple(FIGURE_TEXTS)),
            }
        )

    def pairs(self, row: Row) -> dict[int, tuple[str, str]]:
        """Fingerprints of a row and its counterpart by seed, for seeds with predictions of both."""
        found = {}
        for seed in self.current.seeds(row):
            other = self.current.against(row, seed)
            keys = self.current.key(row, seed), self.current.key(other, seed)
            if self.current.run(other, seed) is not None and all(
                self.predictions_path(key).exists() for key in keys
            ):
                found[seed] = keys
        return found

    def values(self, key: str) -> list[float]:
        """The recorded figures of a ``run`` line."""
        line = self.records.find("run", key)
        assert line is not None, key
        return [line["figures"][name] for name in FIGURE_TEXTS]

    def cost(self, pairs: Sequence[tuple[str, str]]) -> float | None:
        """The mean ratio of a row's time per epoch and its counterpart's; None without training."""
        lines = [[self.records.find("run", key) or {} for key in keys] for keys in pairs]
        return mean_ratio(lines, "seconds_per_epoch" if self.name[1] == "gpu" else "cpu_seconds_per_epoch")

    def left_out(self) -> list[str]:
        """The leave-one-out rows of the techniques in ``all`` that have a gain alone."""
        winners = [name for name in COMBINED if is_winner(self.current.gain(ROWS[name]))]
        self.console.say(STAGE, f"techniques with a gain alone: {', '.join(winners) or 'none'}")
        return [WITHOUT + name for name in winners]

    def write_setting(self) -> None:
        """Record the setting if it differs from the newest ``setting`` line."""
        rows = {part: self.data.catalogue.rows(part) for part in SPLITS}
        model, data = self.setting.baseline.model, self.setting.data
        line = {
            "kind": "setting",
            "data": self.name[0],
            "scale": self.name[1],
            "catalogue": self.data.catalogue.digest()[:16],
            "rows": {part: len(numbers) for part, numbers in rows.items()},
            "test_positives": self.data.catalogue.counts(rows["test"]),
            "input": model.input_size or data.image_size,
            "backbones": self.setting.backbones,
            "epochs": self.setting.epochs,
            "rates": {role: self.current.rate(role) for role in self.setting.backbones},
            "command": run_command(*self.name),
        }
        if self.records.newest("setting") != line:
            self.records.add(line)


def mean_ratio(pairs: Sequence[Sequence[Line]], figure: str) -> float | None:
    """The mean ratio of ``figure`` in the two lines of each pair; None if one is missing."""
    if any(figure not in line for pair in pairs for line in pair):
        return None
    return round(float(np.mean([first[figure] / second[figure] for first, second in pairs])), 3)
