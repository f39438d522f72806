"""How far a run is, from its files alone: any stage, variant, fold and rank, at any time, without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from rich.console import Group
from rich.text import Text

from canopy.config import Experiment
from canopy.errors import RunDirError
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.monitor.progress_table import progress_table
from canopy.train.training_run import training_run_directory, training_run_name

STAGES = ("prepare", "sweep", "train", "ensemble", "report")
Row = dict[str, Any]


def overview(run: RunDir, now: float) -> Group:
    """Everything about a run on one screen.

    Args:
        run: to look at.
        now: Unix seconds.

    Raises:
        RunDirError: when the directory is no run.
    """
    config = config_of(run)
    rows = trainings(run, config)
    states = [f"  {stage:<9}{text}" for stage, text in stages(run, config, rows).items()]
    reasons = [Text(f"{row['name']}: {row['reason']}") for row in rows if row["state"] == "failed"]
    head = f"{config.preset} in {files.shown(run.root)}"
    return Group(head, *states, "", progress_table(rows, now), *([Text(""), *reasons] if reasons else []))


def config_of(run: RunDir) -> Experiment:
    """The config of the newest start.

    Raises:
        RunDirError: when the directory is no run, or one of another version.
    """
    try:
        return run.load_config()
    except ValidationError as error:
        thing, problem = f"{files.shown(run.path('config.yaml'))}", "must be a config of this version"
        got = ", ".join(".".join(map(str, one["loc"])) for one in error.errors()[:3])
        raise RunDirError(thing, problem, got, "Look at the run with the version that made it.") from None


def stages(run: RunDir, config: Experiment, rows: list[Row]) -> dict[str, str]:
    """Each stage's state in words; ``rows`` are the trainings."""
    found: dict[str, str] = {}
    for stage in STAGES:
        record = read(run, stage, "done.json")
        if record is not None:
            seconds = record.get("seconds")
            found[stage] = "done" + ("" if seconds is None else f" in {seconds:,.0f} s")
        elif stage == "report" and files.exists(run.path(stage, "index.html")):
            found[stage] = "done"
        elif stage == "sweep" and config.sweep_reference is None:
            found[stage] = "not wanted"
        elif stage == "sweep":
            ended = len(listing(run, stage, "trials"))
            found[stage] = f"{ended} of {config.sweep.trials} trials ended" if ended else "to do"
        else:
            found[stage] = "to do"
    training_runs = [row for row in rows if row["rank"] == 0]
    count = {state: sum(row["state"] == state for row in training_runs) for state in ("done", "failed")}
    if not found["train"].startswith("done") and any(row["state"] != "waiting" for row in training_runs):
        failed = f", {count['failed']} failed" if count["failed"] else ""
        found["train"] = f"{count['done']} of {len(training_runs)} trainings done{failed}"
    return found


def trainings(run: RunDir, config: Experiment) -> list[Row]:
    """A row per training and rank, as :func:`canopy.train.monitor.progress_table.progress_table` takes them.

    A finished training is one row; it has the state ``waiting`` before it has said anything.
    """
    rows: list[Row] = []
    for variant in config.variants:
        for fold in range(config.folds):
            name, directory = (
                training_run_name(variant.name, fold, config.folds),
                training_run_directory(variant.name, fold),
            )
            rows += training(run, name, directory, variant.scale.workers)
    return rows


def training(run: RunDir, name: str, directory: str, workers: int) -> Iterator[Row]:
    """Rank 0's row, then, while it trains, those of the other ranks."""
    done, said = read(run, directory, "done.json"), read(run, directory, "progress.json")
    row: Row = {**(said or {"state": "waiting", "epochs": 0}), "name": name, "rank": 0}
    if row["state"] == "done" and done is None:
        row["state"] = "ending"  # its own process is through, the fleet has yet to take note
    if done is not None and (said is None or said["state"] != "failed") and not newer(said, done):
        row["state"] = "done"
    yield row
    if row["state"] in {"waiting", "done", "failed", "ending"}:
        return
    for rank in range(1, int(row.get("ranks", workers))):
        told = read(run, directory, f"progress-rank{rank}.json")
        yield {**(told or {"state": "waiting", "epochs": 0}), "name": f"  rank {rank}", "rank": rank}


def newer(said: Row | None, done: Row) -> bool:
    """Whether a training has begun anew since it was last done."""
    return said is not None and said["state"] != "done" and said["time"] > done.get("end", float("inf"))


def read(run: RunDir, *parts: str) -> Row | None:
    """A JSON file of the run; None when it is not there, or is being written."""
    try:
        found: Row = files.read_json(run.path(*parts))
    except (FileNotFoundError, ValueError):
        return None
    return found


def listing(run: RunDir, *parts: str) -> list[str]:
    """The names in a directory of the run; none when it is not there."""
    try:
        return list(files.list_files(run.path(*parts)))
    except FileNotFoundError:
        return []
