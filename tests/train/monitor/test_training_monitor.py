"""The monitor of a training: waiting for data, steps over phases, the progress file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from tests.support import read_json
from tests.train.monitor.records import EPOCH

from canopy.train.monitor.progress_file import ProgressFile
from canopy.train.monitor.progress_record import LIVE_METRICS
from canopy.train.monitor.training_monitor import TrainingMonitor
from canopy.train.training_records import EpochRecord, TrainingPosition


class Listener:
    """A logger that keeps what it gets."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.records: list[tuple[int, int]] = []
        self.closed = False

    def log_live(self, step: int, metrics: Mapping[str, float]) -> None:
        assert set(metrics) <= set(LIVE_METRICS)
        self.steps.append(step)

    def log_epoch(self, step: int, record: EpochRecord) -> None:
        self.records.append((step, record.epoch))

    def close(self) -> None:
        self.closed = True


def test_the_monitor_measures_waiting_and_keeps_counting_over_phases(tmp_path: Path) -> None:
    progress, listener = ProgressFile(str(tmp_path / "progress.json"), "v", ranks=1), Listener()
    monitor = TrainingMonitor(progress, [listener], torch.device("cpu"))

    def slow() -> Iterator[int]:
        for n in range(4):
            time.sleep(0.02)
            yield n

    monitor.on_phase_start(epochs=2, steps_per_epoch=4, epochs_done=0)
    assert list(monitor.time_batches(slow())) == [0, 1, 2, 3]
    assert 0.08 <= monitor.data_wait_s < 1
    for step in range(1, 5):
        monitor.on_step_end(0, step, 8)
    saved: list[TrainingPosition] = []
    state = TrainingPosition(epoch=1, history=[EPOCH])
    monitor.wrap_save(saved.append)(state)
    assert saved == [state]
    record = read_json(tmp_path / "progress.json")
    assert (record["kept"], record["kept_at"], record["state"]) == (1, "epoch 1", "training")
    assert (record["scored"], record["score"], record["val_map"], record["val_macro_f1"]) == (
        1,
        0.5,
        0.5,
        0.4,
    )
    assert record["train_loss"] == 0.25
    monitor.on_phase_start(epochs=2, steps_per_epoch=10, epochs_done=1)  # a phase of longer epochs
    monitor.on_step_end(1, 1, 8)
    assert listener.records == [(4, 1)]
    assert listener.steps == sorted(listener.steps)
    assert listener.steps[-1] == 5
    monitor.set_state("done")
    monitor.close()
    assert listener.closed
    assert read_json(tmp_path / "progress.json")["state"] == "done"


def test_a_checkpoint_within_an_epoch_logs_no_epoch(tmp_path: Path) -> None:
    progress, listener = ProgressFile(str(tmp_path / "progress.json"), "v", ranks=1), Listener()
    monitor = TrainingMonitor(progress, [listener], torch.device("cpu"))
    monitor.on_phase_start(epochs=2, steps_per_epoch=4, epochs_done=0)
    monitor.wrap_save(lambda _: None)(TrainingPosition(epoch=1, step=2, history=[EPOCH]))
    assert listener.records == []
    assert read_json(tmp_path / "progress.json")["kept_at"] == "epoch 2, step 2"
