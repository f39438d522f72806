"""The files of a finished sweep, below ``sweep/`` of the run directory.

::

    best.json        the values that the variants take
    trials.json      all trials, without their curves
    trials.parquet   a row per trial and epoch, with a column per field
    importance.json  swept variant -> importance of each field, for sweeps over other spaces than the former
    surface.json     swept variant -> response surface over its two most important ranges
    best.yaml        the experiment with these values, in the form that ``--config`` reads
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml

from canopy.config import Experiment, SweepConfig, derive
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.sweep.importance import importances
from canopy.sweep.records import TrialRecord
from canopy.sweep.result import SweepResult
from canopy.sweep.surface import response_surface, surfaces_json

Trials = Mapping[str, Sequence[TrialRecord]]
"""Swept variant → its trials in order."""


def write_outputs(
    config: Experiment, result: SweepResult, trials: Trials, run_dir: RunDir
) -> tuple[str, ...]:
    """Write the files; returns the names of those that later stages need."""

    def path(name: str) -> str:
        return run_dir.path(Stage.SWEEP, name)

    files.write_table(path("trials.parquet"), trials_table(trials))
    files.write_bytes(path("best.yaml"), best_config_text(config, result).encode())
    if not result.former:
        spaces = {study.name: study.space for study in config.sweep_studies}
        found = {name: importances(spaces[name], records) for name, records in trials.items()}
        content = {name: [one.to_json() for one in own] for name, own in found.items()}
        files.write_json(path("importance.json"), content)
        surfaces = {
            name: response_surface(spaces[name], records, found[name]) for name, records in trials.items()
        }
        files.write_json(path("surface.json"), surfaces_json(surfaces))
    files.write_json(path("trials.json"), trials_summary(trials, result.former))
    files.write_json(path("best.json"), result.to_json())
    return ("best.json", "trials.json")


def trials_summary(trials: Trials, former: bool) -> list[dict[str, Any]]:
    """The content of ``trials.json``, in the form of former versions or with variant, values and curve."""
    if former:
        return [record.summary() for records in trials.values() for record in records]
    return [
        {
            "variant": name,
            "number": number,
            "values": dict(record.values),
            "score": record.score,
            "epochs": record.epochs,
            "stopped_early": record.stopped_early,
            "error": record.error,
            "seconds": round(record.seconds, 3),
            "curve": list(record.curve),
        }
        for name, records in trials.items()
        for number, record in enumerate(records)
    ]


def trials_table(trials: Trials) -> pa.Table:
    """One row per trial and completed epoch; a trial without epochs has one row with epoch 0.

    Columns: ``variant``, ``trial`` (from 0), ``epoch`` (from 1), ``score`` after it, ``last`` (whether it is
    the trial's last epoch), ``epochs``, ``stopped_early``, ``error``, ``seconds`` of the whole trial, and one
    per swept field, null where the trial did not read it. A field whose values have several types is text.
    """
    fields = list(
        dict.fromkeys(name for records in trials.values() for record in records for name in record.values)
    )
    rows: list[dict[str, Any]] = []
    for variant, records in trials.items():
        for number, record in enumerate(records):
            curve = record.curve or ((record.score,) if record.score is not None else ())
            first = record.epochs - len(curve) + 1
            epochs: list[tuple[int, float | None]] = list(enumerate(curve, start=first)) or [(0, None)]
            for epoch, score in epochs:
                rows.append(
                    {
                        **{"variant": variant, "trial": number, "epoch": epoch, "score": score},
                        **{"last": epoch == epochs[-1][0], "epochs": record.epochs},
                        **{"stopped_early": record.stopped_early, "error": record.error or ""},
                        "seconds": record.seconds,
                        **{name: record.values.get(name) for name in fields},
                    }
                )
    for name in fields:
        kinds = {type(row[name]) for row in rows} - {type(None)}
        if len(kinds) > 1:
            number = kinds <= {int, float}
            for row in rows:
                if row[name] is not None:
                    row[name] = float(row[name]) if number else json.dumps(row[name])
    return pa.Table.from_pylist(rows)


def best_config_text(config: Experiment, result: SweepResult) -> str:
    """The experiment with the found values and without a sweep, as YAML."""
    variants = tuple(derive(one, swept=False) for one in result.variants(config))
    settled = derive(config, variants=variants, sweep=SweepConfig(trials=0))
    return yaml.safe_dump(settled.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
