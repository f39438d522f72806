"""Progress of a run from its files alone: every stage, training and rank, at any time, without Ray."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from rich.console import Group
from rich.text import Text

from canopy.config import Experiment
from canopy.config.validation import config_error
from canopy.errors import InputError, RunDirError
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.monitor.progress_table import progress_table
from canopy.train.training_run import training_run_directory, training_run_name

logger = logging.getLogger(__name__)

Row = dict[str, Any]
"""Content of a progress file, one row of the table of trainings."""


def overview(run: RunDir, now: float) -> Group:
    """Stages and trainings of a run on one screen.

    Args:
        run: the run directory.
        now: Unix seconds.

    Raises:
        RunDirError: when the directory is no run.
    """
    config = config_of(run)
    rows = trainings(run, config)
    states = [f"  {stage:<9}{text}" for stage, text in stage_states(run, config, rows).items()]
    reasons = [Text(f"{row['name']}: {row['reason']}") for row in rows if row["state"] == "failed"]
    head = Text(f"{config.preset} in {files.shown(run.root)}")
    return Group(head, *states, "", progress_table(rows, now), *([Text(""), *reasons] if reasons else []))


def config_of(run: RunDir) -> Experiment:
    """The config that the newest start stored.

    Raises:
        RunDirError: when the directory is no run, or was made by another version of Canopy.
    """
    try:
        return run.load_config()
    except ValidationError as error:
        problem = config_error(files.shown(run.path("config.yaml")), error)
        remedy = "Use the version of Canopy that made the run."
        got = f"{problem.thing} {problem.constraint}"
        thing = files.shown(run.path("config.yaml"))
        raise RunDirError(thing, "must be a config of this version", got, remedy) from None


def stage_states(run: RunDir, config: Experiment, rows: list[Row]) -> dict[Stage, str]:
    """The state of each stage as a phrase; ``rows`` are those of :func:`trainings`."""
    found: dict[Stage, str] = {}
    for stage in Stage:
        record = read(run, stage, "done.json")
        if record is not None:
            seconds = record.get("seconds")
            found[stage] = "done" + ("" if seconds is None else f" in {seconds:,.0f} s")
        elif stage is Stage.REPORT and files.exists(run.path(stage, "index.html")):
            found[stage] = "done"
        elif stage is Stage.SWEEP and config.sweep_reference is None:
            found[stage] = "not wanted"
        elif stage is Stage.SWEEP:
            ended = len(names_in(run, stage, "trials"))
            found[stage] = f"{ended} of {config.sweep.trials} trials ended" if ended else "to do"
        else:
            found[stage] = "to do"
    first_ranks = [row for row in rows if row["rank"] == 0]
    count = {state: sum(row["state"] == state for row in first_ranks) for state in ("done", "failed")}
    begun = any(row["state"] != "waiting" for row in first_ranks)
    if not found[Stage.TRAIN].startswith("done") and begun:
        failed = f", {count['failed']} failed" if count["failed"] else ""
        found[Stage.TRAIN] = f"{count['done']} of {len(first_ranks)} trainings done{failed}"
    return found


def trainings(run: RunDir, config: Experiment) -> list[Row]:
    """A row per training and rank for :func:`canopy.train.monitor.progress_table.progress_table`.

    A finished training is one row; a training without a progress file has the state ``waiting``.
    """
    rows: list[Row] = []
    for variant in config.variants:
        for fold in range(config.folds):
            name = training_run_name(variant.name, fold, config.folds)
            directory = training_run_directory(variant.name, fold)
            rows += training(run, name, directory, variant.scale.workers)
    return rows


def training(run: RunDir, name: str, directory: str, workers: int) -> Iterator[Row]:
    """The row of rank 0 and, while the training runs, those of the other ranks.

    Args:
        run: the run directory.
        name: of the training.
        directory: of the training, relative to the run directory.
        workers: number of ranks, where the progress file does not say it.
    """
    done, progress = read(run, directory, "done.json"), read(run, directory, "progress.json")
    row: Row = {"state": "waiting", "epochs": 0, **(progress or {}), "name": name, "rank": 0}
    if row["state"] == "done" and done is None:
        row["state"] = "ending"  # its own process has ended, the fleet has not recorded it yet
    failed = progress is not None and progress.get("state") == "failed"
    if done is not None and not failed and not is_newer(progress, done):
        row["state"] = "done"
    yield row
    if row["state"] in {"waiting", "done", "failed", "ending"}:
        return
    for rank in range(1, int(row.get("ranks", workers))):
        other = read(run, directory, f"progress-rank{rank}.json")
        yield {"state": "waiting", "epochs": 0, **(other or {}), "name": f"  rank {rank}", "rank": rank}


def is_newer(progress: Row | None, done: Row) -> bool:
    """Whether a training has started again since it was last done."""
    if progress is None or progress.get("state") == "done":
        return False
    return bool(progress.get("time", 0.0) > done.get("end", float("inf")))


def read(run: RunDir, *parts: str) -> Row | None:
    """A JSON object of the run; None where it is missing or cannot be read."""
    path = run.path(*parts)
    try:
        found = files.read_json(path)
    except FileNotFoundError:
        return None
    except InputError as error:
        logger.warning("unreadable file, left out: %s", error)
        return None
    return found if isinstance(found, dict) else None


def names_in(run: RunDir, *parts: str) -> list[str]:
    """The names of the files in a directory of the run; empty where it is missing."""
    try:
        return list(files.list_files(run.path(*parts)))
    except FileNotFoundError:
        return []
