"""The progress file: speed, remaining time, how often it is written, and what happens when it cannot be."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tests.support import read_json
from tests.train.monitor.records import Clock

from canopy.train.monitor.progress_file import ProgressFile


def test_speed_wait_and_remaining_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    progress = ProgressFile(str(tmp_path / "progress.json"), "v", ranks=2, rank=0)
    progress.on_phase_start(epochs=2, steps_per_epoch=5)
    for step in range(1, 6):
        clock.now += 100 if step == 1 else 2  # the first step includes start-up
        wait_s = 100 if step == 1 else 100 + 0.5 * (step - 1)
        progress.on_step_end(0, step, images=32, data_wait_s=wait_s, gpu_bytes=7)
    record = read_json(tmp_path / "progress.json")
    assert (record["epoch"], record["step"], record["epochs"], record["steps"]) == (1, 5, 2, 5)
    assert record["images_per_s"] == 16.0
    assert record["wait_share"] == 0.25
    assert record["left_s"] == 10.0
    assert record["gpu_bytes"] == 7
    clock.now += 50  # evaluation: part of the remaining time, not of the speed
    for step in range(1, 4):
        clock.now += 2
        progress.on_step_end(1, step, images=32, data_wait_s=102)
    record = read_json(tmp_path / "progress.json")
    assert record["images_per_s"] == 16.0
    assert record["wait_share"] == 0.0
    assert record["left_s"] == pytest.approx(2 * (8 + 50 + 6) / 7, abs=0.1)


def test_the_file_is_not_written_after_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    progress = ProgressFile(str(tmp_path / "progress.json"), "v", ranks=1)
    progress.on_phase_start(epochs=1, steps_per_epoch=100)
    written = 0
    for step in range(1, 101):
        clock.now += 0.1
        written += progress.on_step_end(0, step, images=1)
        assert progress.record.step == step
    assert 9 <= written <= 12


def test_a_file_that_cannot_be_written_is_logged_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    progress = ProgressFile(str(tmp_path / "file" / "progress.json"), "v", ranks=1)
    with caplog.at_level(logging.WARNING, "canopy"):
        progress.write("training")
        progress.write("done")
    (record,) = caplog.records
    assert record.message.startswith("The progress file ")
    assert record.name == "canopy.train.monitor.progress_file"
    assert progress.record.state == "done"
