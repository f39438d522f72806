"""What a training tells while it runs: progress file, Ray metrics, TensorBoard, MLflow, the live table."""

from __future__ import annotations

import importlib
import importlib.util
import io
import struct
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console as RichConsole
from tests.support import read_json

from canopy.config import TrackingConfig, VariantConfig
from canopy.errors import ConfigError
from canopy.runtime.console import Console
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from canopy.train.monitor import loggers
from canopy.train.monitor.callbacks import TrainingMonitor
from canopy.train.monitor.live_display import LiveDisplay
from canopy.train.monitor.loggers import MLflowLogger, TensorBoardLogger, check_tracking
from canopy.train.monitor.progress_file import ProgressFile
from canopy.train.monitor.progress_table import epoch_line, progress_table
from canopy.train.progress import EpochRecord, Progress
from canopy.train.training_run import TrainingRun

RECORD = {
    "epoch": 1,
    "train_loss": 0.25,
    "score": 0.5,
    "val_map": 0.5,
    "val_macro_f1": 0.4,
    "images_per_s": 900.0,
    "lr": 0.001,
    "seconds": 3.0,
}


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("canopy.train.monitor.progress_file.time.monotonic", lambda: self.now)


def unit_in(folder: Path, name: str = "v") -> TrainingRun:
    return TrainingRun(VariantConfig(name=name), 0, 1, str(folder), "f" * 64, "c" * 64)


def test_speed_wait_and_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    progress = ProgressFile(str(tmp_path / "progress.json"), "v", ranks=2, rank=0)
    progress.begin(epochs=2, steps_per_epoch=5)
    for step in range(1, 6):
        clock.now += 100 if step == 1 else 2  # the first step waits for the start-up
        progress.step(0, step, images=32, waited_s=100 if step == 1 else 100 + 0.5 * (step - 1))
    said = read_json(tmp_path / "progress.json")
    assert (said["epoch"], said["step"], said["epochs"], said["steps"]) == (1, 5, 2, 5)
    assert said["images_per_s"] == 16.0
    assert said["wait_share"] == 0.25
    assert said["left_s"] == 10.0
    clock.now += 50  # evaluation: it counts for the time left, not for the speed
    for step in range(1, 4):
        clock.now += 2
        progress.step(1, step, images=32, waited_s=102)
    said = read_json(tmp_path / "progress.json")
    assert said["images_per_s"] == 16.0
    assert said["wait_share"] == 0.0
    assert said["left_s"] == pytest.approx(2 * (8 + 50 + 6) / 7, abs=0.1)


def test_files_are_not_written_at_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    progress = ProgressFile(str(tmp_path / "progress.json"), "v", ranks=1)
    progress.begin(epochs=1, steps_per_epoch=100)
    written = 0
    for step in range(1, 101):
        clock.now += 0.1
        written += progress.step(0, step, images=1)
    assert 9 <= written <= 12


def test_a_progress_file_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert ProgressFile(str(tmp_path / "file" / "progress.json"), "v", ranks=1).say("training")


class Listener:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.records: list[tuple[int, float]] = []

    def live(self, step: int, figures: Any) -> None:
        assert set(figures) <= {"images_per_s", "wait_share", "left_s", "gpu_bytes"}
        self.steps.append(step)

    def epoch(self, step: int, record: Any) -> None:
        self.records.append((step, record["epoch"]))

    def close(self) -> None:
        pass


def test_the_watcher_measures_waiting_and_counts_on_over_phases(tmp_path: Path) -> None:
    progress, listener = ProgressFile(str(tmp_path / "progress.json"), "v", ranks=1), Listener()
    monitor = TrainingMonitor(progress, [listener], torch.device("cpu"))

    def slow() -> Iterator[int]:
        for n in range(4):
            time.sleep(0.02)
            yield n

    monitor.begin(epochs=2, steps_per_epoch=4, epochs_done=0)
    assert list(monitor.timed(slow())) == [0, 1, 2, 3]
    assert 0.08 <= monitor.waited_s < 1
    for step in range(1, 5):
        monitor.step(0, step, 8)
    kept: list[Progress] = []
    state = Progress(epoch=1, history=[EpochRecord.from_json({**RECORD, "phase": 1})])
    monitor.after_epoch(kept.append)(state)
    assert kept == [state]
    said = read_json(tmp_path / "progress.json")
    assert (said["kept"], said["scored"], said["val_map"], said["state"]) == (1, 1, 0.5, "training")
    monitor.begin(epochs=2, steps_per_epoch=10, epochs_done=1)  # a phase of longer epochs
    monitor.step(1, 1, 8)
    assert listener.records == [(4, 1)]
    assert listener.steps == sorted(listener.steps)
    assert listener.steps[-1] == 5


# TensorBoard


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar in the event files of a folder: (step, value) by name."""
    event_pb2 = importlib.import_module("tensorboardX.proto.event_pb2")
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
            data = data[16 + length :]
    return found


@pytest.mark.parametrize("remote", [False, True])
def test_tensorboard_gets_curves_of_every_rank(tmp_path: Path, remote: bool) -> None:
    goal = f"file://{tmp_path}" if remote else str(tmp_path)
    for rank in (0, 1):
        board = TensorBoardLogger(files.join(goal, f"rank{rank}"), scores=rank == 0)
        board.live(3, {"images_per_s": 100.0, "wait_share": 0.125, "left_s": 9.0})
        board.epoch(4, RECORD)
        if remote:  # an object store's file cannot grow: it is there after an epoch, whole
            assert scalars(tmp_path / f"rank{rank}")["speed/images_per_s"] == [(3, 100.0)]
        board.close()
    first, second = scalars(tmp_path / "rank0"), scalars(tmp_path / "rank1")
    assert first["train/loss"] == [(4, 0.25)]
    assert first["val/macro_f1"][0][1] == pytest.approx(0.4)
    assert first["speed/data_wait_share"] == second["speed/data_wait_share"] == [(3, 0.125)]
    assert "val/map" not in second


# Ray metrics


@pytest.mark.usefixtures("ray_here")
def test_figures_reach_prometheus() -> None:
    import ray

    from canopy.train.monitor.ray_metrics import RayMetrics

    tags = {"run": "/runs/x", "variant": "resnet", "fold": "0", "rank": "1"}
    meters = RayMetrics(tags)
    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    page = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    wanted = {"canopy_images_per_s", "canopy_data_wait_share", "canopy_eta_seconds", "canopy_val_macro_f1"}
    end, step, lines = time.monotonic() + 60, 0, dict[str, str]()
    while time.monotonic() < end and not wanted | {"canopy_steps"} <= lines.keys():
        step += 2
        meters.live(step, {"images_per_s": 123.0, "wait_share": 0.25, "left_s": 60.0})
        meters.epoch(step, RECORD)
        time.sleep(1)
        with urllib.request.urlopen(page, timeout=10) as answer:
            text = answer.read().decode()
        # the page also holds what other trainings in this Ray have said
        ours = [x for x in text.splitlines() if x.startswith("ray_canopy_") and 'run="/runs/x"' in x.lower()]
        lines = {line.partition("{")[0].removeprefix("ray_").removesuffix("_total"): line for line in ours}
    assert wanted | {"canopy_steps"} <= lines.keys(), lines
    assert lines["canopy_images_per_s"].endswith(" 123.0"), (
        "the epoch's rate is of all ranks, not of this one"
    )
    for key, value in (("variant", "resnet"), ("fold", "0"), ("rank", "1")):
        assert f'{key}="{value}"' in lines["canopy_images_per_s"].lower()


# MLflow


def test_mlflow_that_is_missing_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tracking(TrackingConfig())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package mlflow.*canopy\[mlflow\]"):
        check_tracking(TrackingConfig(mlflow_uri="http://localhost:5000"))


def test_mlflow_gets_a_run_that_a_restart_goes_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra canopy-eo[mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a store without a server
    config = TrackingConfig(mlflow_uri=f"{tmp_path.as_uri()}/mlflow", mlflow_experiment="trees")
    memory, training_run = str(tmp_path / "mlflow.json"), unit_in(tmp_path)
    for epoch, resumed in ((1, False), (2, True)):
        sink = MLflowLogger(config, memory, training_run, resumed)
        sink.live(epoch, {"images_per_s": 1.0})
        sink.epoch(epoch * 10, {**RECORD, "epoch": epoch})
        sink.close()
    client = mlflow.MlflowClient(tracking_uri=config.mlflow_uri)
    (run,) = client.search_runs([client.get_experiment_by_name("trees").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.batch_size"] == "64"
    assert run.data.tags["canopy.config_hash"] == training_run.config_hash
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == [10, 20]


def test_an_mlflow_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="the extra canopy-eo[mlflow] is not installed")
    config = TrackingConfig(mlflow_uri="http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"tracking\.mlflow_uri must be an MLflow server"):
        MLflowLogger(config, str(tmp_path / "mlflow.json"), unit_in(tmp_path), resumed=False)


def test_parameters_are_flat() -> None:
    assert loggers.flattened({"a": {"b": 1, "c": {"d": None}}, "e": 2}) == {"a.b": 1, "a.c.d": None, "e": 2}


# What the fleet shows


def say(run: Path, training_run: TrainingRun, **facts: Any) -> None:
    """A progress file as a worker leaves it."""
    record = {
        "name": training_run.name,
        "rank": 0,
        "ranks": 1,
        "state": "training",
        "epochs": 3,
        "time": time.time(),
    }
    files.write_json(str(run / training_run.directory / "progress.json"), {**record, **facts})


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    made, text = Console(), io.StringIO()
    made.rich = RichConsole(file=text, force_terminal=terminal, width=120, highlight=False, soft_wrap=True)
    return made, text


def test_a_log_gets_a_line_per_epoch_and_now_and_then_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("canopy.train.monitor.live_display.LOOK_EVERY_S", 0.0)
    quick, slow = unit_in(tmp_path, "quick"), unit_in(tmp_path, "slow")
    screen, text = console(terminal=False)
    with LiveDisplay([quick, slow], RunDir(str(tmp_path)), screen, table_minutes=1e-9) as board:
        board.started(quick, "a small one")
        epoch = {"epoch": 2, "step": 1, "steps": 4, "scored": 1, "train_loss": 0.5, "val_map": 0.25}
        say(tmp_path, quick, **epoch, images_per_s=50.0, ranks=2, wait_share=0.031, left_s=61)
        for _ in range(3):
            board.look([quick])
        assert board.left(quick) == pytest.approx(1 - 5 / 12)
        assert board.left(slow) == 1
        board.failed(slow, "its weights are none")
    lines = text.getvalue().splitlines()
    told = [line for line in lines if "quick epoch" in line]
    assert len(told) == 1, "the same epoch is told once"
    assert told[0].endswith(
        "quick epoch 1/3: loss 0.5000, val mAP 0.250, 100 images/s, 3% waiting, 1:01 left"
    )
    tables = [line for line in lines if line.startswith("slow")]
    assert tables
    assert all("queued" in line for line in tables)
    assert "slow FAILED: its weights are none" in text.getvalue()
    said = read_json(tmp_path / slow.directory / "progress.json")
    assert (said["state"], said["reason"]) == ("failed", "its weights are none")


def test_a_terminal_gets_a_live_table_and_no_line_per_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("canopy.train.monitor.live_display.LOOK_EVERY_S", 0.0)
    training_run = unit_in(tmp_path)
    screen, text = console(terminal=True)
    with LiveDisplay([training_run], RunDir(str(tmp_path)), screen, table_minutes=5) as board:
        board.started(training_run, "a small one")
        say(tmp_path, training_run, epoch=2, step=3, steps=4, scored=1, train_loss=0.5, val_map=0.25)
        board.look([training_run])
    assert "macro-F1" in text.getvalue()
    assert "0.5000" in text.getvalue()
    assert "v epoch" not in text.getvalue()


def test_what_an_earlier_start_left_is_not_shown(tmp_path: Path) -> None:
    training_run = unit_in(tmp_path)
    say(tmp_path, training_run, epoch=3, step=4, steps=4, scored=3, train_loss=0.1, val_map=0.9)
    time.sleep(0.01)
    screen, text = console(terminal=False)
    with LiveDisplay([training_run], RunDir(str(tmp_path)), screen, table_minutes=5) as board:
        board.started(training_run, "again")
        board.look([training_run])
        assert board.left(training_run) == 1
    assert "epoch" not in text.getvalue()


def test_silence_is_marked() -> None:
    rows = [
        {"name": "a", "state": "training", "epochs": 3, "epoch": 1, "step": 1, "steps": 2, "time": 1000.0},
        {"name": "b", "state": "done", "epochs": 3, "epoch": 3, "time": 0.0},
    ]
    text = io.StringIO()
    RichConsole(file=text, width=120).print(progress_table(rows, now=1190.0))
    head, first, second = text.getvalue().splitlines()
    assert "training, no sign for 3 min" in first
    assert "no sign" not in second
    assert "1/3" in first
    assert head.split()[0] == "training"


def test_an_epoch_without_rates_is_told_all_the_same() -> None:
    row = {"name": "v", "scored": 1, "epochs": 2, "train_loss": 0.5, "val_map": 0.25}
    assert epoch_line(row) == "v epoch 1/2: loss 0.5000, val mAP 0.250"
