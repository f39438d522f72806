"""The progress of a run, read from its files alone: every stage, variant, fold and rank, without Ray."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Group
from rich.text import Text

from canopy.config import Experiment
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.run_dir import DoneMark, RunDir
from canopy.train.monitor.progress_record import ProgressRecord, progress_file_name, read_progress_record
from canopy.train.monitor.progress_table import progress_table
from canopy.train.training_run import training_run_directory, training_run_name

logger = logging.getLogger(__name__)

NOT_RUNNING = ("waiting", "ending", "done", "failed")
"""States in which the other ranks' records are not shown."""


def overview(run_dir: RunDir, now: float) -> Group:
    """The state of a run on one screen: its stages, its trainings, the reasons of failures.

    Args:
        run_dir: the run directory.
        now: Unix time in seconds.

    Raises:
        RunDirError: when the directory is not a run directory.
    """
    config = run_dir.load_config()
    records = training_records(run_dir, config)
    states = [Text(f"  {stage:<9}{text}") for stage, text in stage_states(run_dir, config, records).items()]
    explained = [record for record in records if record.state in ("failed", "waiting") and record.reason]
    reasons = [Text(f"{record.name}: {record.reason}") for record in explained]
    head = Text(f"{config.preset} in {files.shown(run_dir.root)}")
    return Group(head, *states, "", progress_table(records, now), *([Text(""), *reasons] if reasons else []))


def stage_states(run_dir: RunDir, config: Experiment, records: Sequence[ProgressRecord]) -> dict[str, str]:
    """The state of each stage in words.

    Args:
        run_dir: the run directory.
        config: config of the run.
        records: records of all trainings.
    """
    states = {str(stage): stage_state(run_dir, stage, config) for stage in Stage}
    leaders = [record for record in records if record.rank == 0]
    done, failed = (sum(record.state == state for record in leaders) for state in ("done", "failed"))
    begun = any(record.state != "waiting" or record.time is not None for record in leaders)
    if not states[Stage.TRAIN].startswith("done") and begun:
        failures = f", {failed} failed" if failed else ""
        states[Stage.TRAIN] = f"{done} of {len(leaders)} trainings done{failures}"
    return states


def stage_state(run_dir: RunDir, stage: Stage, config: Experiment) -> str:
    """The state of one stage in words, from its ``done.json`` and, for the sweep, from its trials."""
    mark = run_dir.read_mark(stage)
    if mark is not None:
        seconds = mark.facts.get("seconds")
        return "done" + ("" if seconds is None else f" in {seconds:,.0f} s")
    if stage is Stage.REPORT and files.exists(run_dir.path(stage, "index.html")):
        return "done"
    if stage is Stage.SWEEP and not config.sweep_studies:
        return "not wanted"
    if stage is Stage.SWEEP:
        ended = len(file_names(run_dir, stage, "trials"))
        return f"{ended} of {expected_trials(config)} trials ended" if ended else "to do"
    return "to do"


def expected_trials(config: Experiment) -> int:
    """Number of trials of the sweep if none is stopped, the runs of the finalists included."""
    settings = config.sweep
    finals = settings.effective_finalists
    runs = (finals + 1) * settings.final_seeds if finals else 0
    return len(config.sweep_studies) * (settings.trials + runs)


def training_records(run_dir: RunDir, config: Experiment) -> list[ProgressRecord]:
    """A record per training, and one per further rank while it runs.

    The state is ``waiting`` for a training without a progress file.
    """
    records: list[ProgressRecord] = []
    for variant in config.trained_variants:
        for fold in range(config.folds):
            name = training_run_name(variant.name, fold, config.folds)
            directory = training_run_directory(variant.name, fold)
            records += rank_records(run_dir, name, directory, variant.scale.workers)
    return records


def rank_records(run_dir: RunDir, name: str, directory: str, workers: int) -> Iterator[ProgressRecord]:
    """The record of rank 0, then, while the training runs, those of the other ranks.

    Args:
        run_dir: the run directory.
        name: name of the training.
        directory: its directory in the run.
        workers: number of ranks where no record holds it.
    """
    mark, stored = run_dir.read_mark(directory), read_record(run_dir, directory, 0)
    record = replace(stored or ProgressRecord(name, "waiting"), name=name, rank=0)
    if record.state == "done" and mark is None:
        record = replace(record, state="ending")
    if mark is not None and record.state != "failed" and not started_after(stored, mark):
        record = replace(record, state="done")
    yield record
    if record.state in NOT_RUNNING:
        return
    for rank in range(1, workers if stored is None else stored.ranks):
        other = read_record(run_dir, directory, rank) or ProgressRecord(name, "waiting")
        yield replace(other, name=f"  rank {rank}", rank=rank)


def started_after(record: ProgressRecord | None, mark: DoneMark) -> bool:
    """Whether a training was started again after the end that its ``done.json`` records."""
    if record is None or record.time is None or record.state == "done":
        return False
    return bool(record.time > mark.facts.get("end", float("inf")))


def read_record(run_dir: RunDir, directory: str, rank: int) -> ProgressRecord | None:
    """The progress record of a rank; None when there is no file, or a damaged one."""
    try:
        return read_progress_record(run_dir.path(directory, progress_file_name(rank)))
    except (OSError, ValueError) as error:
        logger.warning("unreadable progress of %s, rank %d: %s", directory, rank, error)
        return None


def file_names(run_dir: RunDir, *parts: str) -> list[str]:
    """The names in a directory of the run; empty when there is no such directory."""
    try:
        return list(files.list_files(run_dir.path(*parts)))
    except FileNotFoundError:
        return []
