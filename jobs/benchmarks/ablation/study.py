"""Which trainings are missing, running them side by side, and what is made of their predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from jobs.benchmarks.ablation.combined import make
from jobs.benchmarks.ablation.records import Current, Job, Line, Records, essentials
from jobs.benchmarks.ablation.rows import COMBINED, ROWS, WITHOUT, DataName, Row, ScaleName, Setting, setting
from jobs.benchmarks.ablation.runs import Bench, Predicted, figures, per_class, train_row
from jobs.benchmarks.ablation.tables import FIGURE_TEXTS, gain, is_winner, markdown

from canopy.cli import canopy_error
from canopy.data.catalogue import SPLITS
from canopy.errors import CanopyError, InputError, StageError
from canopy.runtime.console import Console

STAGE = "ablation"


def section(records: Records) -> str:
    """The Markdown of one file of figures."""
    line = records.newest("setting")
    if line is None:
        raise InputError(str(records.path), "must hold the figures of a run", "none", "Use `run` first.")
    current = Current(records, setting(line["data"], line["scale"]))
    if any(current.rate(role) is None for role in current.setting.backbones):
        problem, remedy = "must hold figures of the present settings", "Use `run` again."
        raise InputError(str(records.path), problem, "those of others", remedy)
    gains = {name: found for name, row in ROWS.items() if (found := current.gain(row)) is not None}
    baseline = ROWS["baseline"]
    runs = [found for seed in current.seeds(baseline) if (found := current.run(baseline, seed)) is not None]
    return markdown(line, runs, gains, current.failures())


@dataclass
class Study:
    """An ablation on one data set: what is known, and where the rest comes from."""

    name: tuple[DataName, ScaleName]
    setting: Setting
    bench: Bench
    records: Records
    console: Console
    parallel: int
    command: str

    def __post_init__(self) -> None:
        self.current = Current(self.records, self.setting)

    def find_rates(self) -> None:
        """Try every rate that has not been tried; one seed, judged by validation mAP."""
        jobs = [
            self.current.rate_job(role, rate)
            for role in self.setting.backbones
            for rate in self.setting.rates
        ]
        missing = [job for job in jobs if self.records.find("lr", job.fingerprint) is None]
        self.do(missing)
        rates = {role: self.current.rate(role) for role in self.setting.backbones}
        said = ", ".join(f"{self.setting.backbones[role]} {rate:g}" for role, rate in rates.items())
        self.console.say(STAGE, f"learning rates: {said}")

    def run(self, names: Iterable[str], seeds: int) -> None:
        """Train what is missing of the rows, and what they are measured against, seed by seed."""
        rows = self.complete(names)
        trained = [row for row in rows if not row.of]
        jobs = [self.current.job(row, seed) for seed in range(seeds) for row in trained]
        missing = [job for job in jobs if self.is_missing(job, rows)]
        self.console.say(STAGE, f"{len(jobs)} trainings, {len(jobs) - len(missing)} done already")
        self.conclude(rows)
        failed = self.do(missing, rows)
        self.write_setting()
        if failed:
            raise StageError(f"{len(failed)} of {len(missing)} trainings failed; the first: {failed[0]}")

    def complete(self, names: Iterable[str]) -> list[Row]:
        """The rows, those that they need, and those that can be made of them, in the table's order."""
        wanted = {"baseline", *names}
        for name in list(wanted):
            wanted |= {*ROWS[name].of, *({ROWS[name].against} & ROWS.keys())}
        wanted |= {row.name for row in ROWS.values() if row.of and set(row.of) <= wanted}
        return [row for row in ROWS.values() if row.name in wanted]

    def is_missing(self, job: Job, rows: Sequence[Row]) -> bool:
        """Whether a training has to be done: not recorded, or its predictions are gone and still needed."""
        if self.records.find("run", job.fingerprint) is None:
            return True
        if self.kept(job.fingerprint).exists():
            return False
        users = [
            row for row in rows if job.row.name in {row.name, row.against, *row.of} and row.name != "baseline"
        ]
        gains = [self.current.gain(row) for row in users]
        return not all(line is not None and job.variant.seed in line["seeds"] for line in gains)

    def kept(self, key: str) -> Path:
        """Where the predictions behind a line are."""
        return self.bench.cache / f"{key}.npz"

    def do(self, jobs: Sequence[Job], rows: Sequence[Row] = ()) -> list[str]:
        """Train side by side, record each result as it comes; the reasons of those that failed."""
        failed = []
        for number, (job, outcome) in enumerate(self.outcomes(jobs), 1):
            lr, seed = job.variant.optim.lr, job.variant.seed
            what = f"{number}/{len(jobs)} {job.row.name}, seed {seed}, rate {lr:g}"
            head = {"row": job.row.name, "seed": seed, "fingerprint": job.fingerprint, "lr": lr}
            if isinstance(outcome, CanopyError):
                failed.append(str(outcome))
                # A rate that does not train has been tried; a row that does not is tried again.
                kind = {"kind": "lr", "val_map": 0.0} if job.kind == "lr" else {"kind": "failed"}
                self.records.add({**kind, **head, "error": str(outcome)})
                self.console.say(STAGE, f"{what}: FAILED: {outcome}")
                continue
            line = {"kind": job.kind, **head, "config": essentials(job.variant), **outcome}
            self.records.add(line | (self.measured(job.fingerprint) if job.kind == "run" else {}))
            seconds, score = outcome["seconds"], outcome["val_map"]
            self.console.say(STAGE, f"{what}: {seconds:.0f} s, validation mAP {score:.3f}")
            self.conclude(rows)
        return failed

    def outcomes(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Line | CanopyError]]:
        """Each job with its result or our own error, as they end."""
        waiting, running = list(jobs), dict[Any, Job]()
        bench = ray.put(self.bench)
        scale = self.setting.baseline.scale
        task = ray.remote(num_cpus=scale.cpus_per_worker, num_gpus=scale.gpus_per_worker)(train_row)
        while waiting or running:
            while waiting and len(running) < self.parallel:
                job = waiting.pop(0)
                report, views = job.kind == "run", job.row.name == "baseline"
                running[task.remote(job.variant, bench, job.fingerprint, views, report)] = job
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
        """The figures on the test rows, from the kept predictions."""
        targets_NK, predicted = self.bench.targets("test"), Predicted.read(self.kept(key))
        names = self.bench.catalogue.labels.names
        return {
            "figures": figures(targets_NK, predicted),
            "per_class_f1": per_class(targets_NK, predicted, names),
        }

    def conclude(self, rows: Sequence[Row]) -> None:
        """Make what can be made of kept predictions: rows without training of their own, and gains."""
        for row in rows:
            for seed in self.current.seeds(ROWS["baseline"]):
                if row.of and self.current.run(row, seed) is None and self.has_members(row, seed):
                    self.make(row, seed)
        for row in rows:
            if row.name != "baseline":
                self.compare(row)

    def has_members(self, row: Row, seed: int) -> bool:
        """Whether the predictions that a row is made of are there."""
        members = [ROWS[name] for name in row.of]
        return all(
            self.current.run(member, seed) is not None and self.kept(self.current.key(member, seed)).exists()
            for member in members
        )

    def make(self, row: Row, seed: int) -> None:
        """Record a row that trains nothing."""
        key = self.current.key(row, seed)
        members = {name: self.kept(self.current.key(ROWS[name], seed)) for name in row.of}
        make(row, members, self.bench).write(self.kept(key))
        line = {"kind": "run", "row": row.name, "seed": seed, "fingerprint": key, "of": list(row.of)}
        self.records.add({**line, **self.measured(key)})

    def compare(self, row: Row) -> None:
        """Record a row's gain when more seeds have come in than the last record of it holds."""
        pairs = self.pairs(row)
        known = self.current.gain(row)
        if len(pairs) <= (0 if known is None else len(known["seeds"])):
            return
        mine, theirs = zip(*pairs.values(), strict=True)
        values = [np.array([self.values(key) for key in keys]) for keys in (mine, theirs)]
        drawn = [
            np.array([Predicted.read(self.kept(key)).resampled_FB for key in keys]) for keys in (mine, theirs)
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
        """By seed, the keys of a row and of what it is measured against, where both can be compared."""
        found = {}
        for seed in self.current.seeds(row):
            other = self.current.against(row, seed)
            keys = self.current.key(row, seed), self.current.key(other, seed)
            if self.current.run(other, seed) is not None and all(self.kept(key).exists() for key in keys):
                found[seed] = keys
        return found

    def values(self, key: str) -> list[float]:
        """The figures on record."""
        line = self.records.find("run", key)
        assert line is not None, key
        return [line["figures"][name] for name in FIGURE_TEXTS]

    def cost(self, pairs: Sequence[tuple[str, str]]) -> float | None:
        """Mean ratio of time per epoch, a row's over its counterpart's; None where nothing was trained."""
        lines = [[self.records.find("run", key) or {} for key in keys] for keys in pairs]
        return mean_ratio(lines, "seconds_per_epoch" if self.name[1] == "gpu" else "cpu_seconds_per_epoch")

    def left_out(self) -> list[str]:
        """Of what ``all`` is made of, the rows to leave out: those that gained by themselves."""
        winners = [name for name in COMBINED if is_winner(self.current.gain(ROWS[name]))]
        self.console.say(STAGE, f"gained by themselves: {', '.join(winners) or 'none'}")
        return [WITHOUT + name for name in winners]

    def write_setting(self) -> None:
        """Record the sizes, when they are not those of the newest record."""
        rows = {part: self.bench.catalogue.rows(part) for part in SPLITS}
        model, data = self.setting.baseline.model, self.setting.data
        line = {
            "kind": "setting",
            "data": self.name[0],
            "scale": self.name[1],
            "catalogue": self.bench.catalogue.digest()[:16],
            "rows": {part: len(numbers) for part, numbers in rows.items()},
            "test_positives": self.bench.catalogue.counts(rows["test"]),
            "input": model.input_size or data.image_size,
            "backbones": self.setting.backbones,
            "epochs": self.setting.epochs,
            "rates": {role: self.current.rate(role) for role in self.setting.backbones},
            "command": self.command,
        }
        if self.records.newest("setting") != line:
            self.records.add(line)


def mean_ratio(pairs: Sequence[Sequence[Line]], figure: str) -> float | None:
    """Mean of the first's ``figure`` over the second's; None where one has none."""
    if any(figure not in line for pair in pairs for line in pair):
        return None
    return round(float(np.mean([first[figure] / second[figure] for first, second in pairs])), 3)
