"""The console display of a fleet: lines and tables in a log, a live table in a terminal."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support import read_json
from tests.train.monitor.records import EPOCH, console, training_in

from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.monitor.live_display import LiveDisplay
from canopy.train.training_run import TrainingRun

REFRESH = "canopy.train.monitor.live_display.REFRESH_EVERY_S"


def write_record(run: Path, training_run: TrainingRun, **fields: Any) -> None:
    """A progress file as a worker leaves it."""
    record = {"name": training_run.name, "rank": 0, "ranks": 1, "state": "training", "epochs": 3}
    path = str(run / training_run.directory / "progress.json")
    files.write_json(path, {**record, "time": time.time(), **fields})


def test_a_log_gets_a_line_per_epoch_and_some_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REFRESH, 0.0)
    quick, slow = training_in(tmp_path, "quick"), training_in(tmp_path, "slow")
    screen, text = console(terminal=False)
    with LiveDisplay([quick, slow], RunDir(str(tmp_path)), screen, table_minutes=1e-9) as display:
        display.on_start(quick, "a small one")
        epoch = {"epoch": 2, "step": 1, "steps": 4, "scored": 1, "train_loss": 0.5, "val_map": 0.25}
        write_record(tmp_path, quick, **epoch, images_per_s=50.0, ranks=2, wait_share=0.031, left_s=61)
        for _ in range(3):
            display.update([quick])
        assert display.remaining_fraction(quick) == pytest.approx(1 - 5 / 12)
        assert display.remaining_fraction(slow) == 1
        display.on_failure(slow, "the file is empty")
    lines = text.getvalue().splitlines()
    (line,) = [line for line in lines if "quick epoch" in line]
    assert line.endswith("quick epoch 1/3: loss 0.5000, val mAP 0.250, 100 images/s, 3% waiting, 1:01 left")
    tables = [line for line in lines if line.startswith("slow")]
    assert tables
    assert all("queued" in line for line in tables)
    assert "slow FAILED: the file is empty" in text.getvalue()
    record = read_json(tmp_path / slow.directory / "progress.json")
    assert (record["state"], record["reason"]) == ("failed", "the file is empty")


def test_a_terminal_gets_a_live_table_and_no_line_per_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(REFRESH, 0.0)
    training_run = training_in(tmp_path)
    screen, text = console(terminal=True)
    with LiveDisplay([training_run], RunDir(str(tmp_path)), screen, table_minutes=5) as display:
        display.on_start(training_run, "a small one")
        write_record(tmp_path, training_run, epoch=2, step=3, steps=4, scored=1, train_loss=0.5, val_map=0.25)
        display.update([training_run])
    assert "macro-F1" in text.getvalue()
    assert "0.5000" in text.getvalue()
    assert "v epoch" not in text.getvalue()


def test_a_record_of_an_earlier_start_is_not_shown(tmp_path: Path) -> None:
    training_run = training_in(tmp_path)
    write_record(tmp_path, training_run, epoch=3, step=4, steps=4, scored=3, train_loss=0.1, val_map=0.9)
    time.sleep(0.01)
    screen, text = console(terminal=False)
    with LiveDisplay([training_run], RunDir(str(tmp_path)), screen, table_minutes=5) as display:
        display.on_start(training_run, "again")
        display.update([training_run])
        assert display.remaining_fraction(training_run) == 1
    assert "epoch" not in text.getvalue()


def test_the_end_of_a_training_shows_its_best_epoch(tmp_path: Path) -> None:
    training_run = training_in(tmp_path)
    directory = tmp_path / training_run.directory
    files.write_json(str(directory / "history.json"), [EPOCH.to_json()])
    files.write_json(str(directory / "bad_images.json"), {"chip7": "cut off"})
    screen, text = console(terminal=False)
    with LiveDisplay([training_run], RunDir(str(tmp_path)), screen, table_minutes=5) as display:
        display.on_end(training_run)
    assert "v done: best epoch 1, val mAP 0.500" in text.getvalue()
    assert "chip7: cut off" in text.getvalue()


def test_a_wait_before_a_restart_is_shown_and_stored(tmp_path: Path) -> None:
    training_run = training_in(tmp_path)
    screen, text = console(terminal=False)
    with LiveDisplay([training_run], RunDir(str(tmp_path)), screen, table_minutes=5) as display:
        write_record(tmp_path, training_run, epoch=2, step=3, steps=4, ranks=2, images_per_s=50.0)
        display.on_wait(training_run, "memory ran out. Restart 1 of 3 in 10 s.")
    assert "v waits: memory ran out. Restart 1 of 3 in 10 s." in text.getvalue()
    record = read_json(tmp_path / training_run.directory / "progress.json")
    assert (record["state"], record["epoch"]) == ("waiting", 2)
    assert record["images_per_s"] == 50.0, "the file holds the speed of one rank"


def test_a_damaged_progress_file_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    training_run = training_in(tmp_path)
    files.write_bytes(str(tmp_path / training_run.directory / "progress.json"), b"{")
    screen, _ = console(terminal=False)
    with (
        caplog.at_level(logging.WARNING, "canopy"),
        LiveDisplay([training_run], RunDir(str(tmp_path)), screen, table_minutes=5) as display,
    ):
        display.update([training_run])
        display.on_failure(training_run, "crash")
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "The progress file of v could not be read"
    ]
