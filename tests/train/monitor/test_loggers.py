"""TensorBoard's event files and MLflow's runs, and what happens when they cannot be written."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.train.monitor.records import EPOCH, training_in

from canopy.config import TrackingConfig
from canopy.errors import ConfigError
from canopy.storage import files
from canopy.train.monitor.loggers import MLflowLogger, TensorBoardLogger, check_tracking, flatten

NO_MLFLOW = "the extra canopy-eo[mlflow] is not installed"


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
    directory = f"file://{tmp_path}" if remote else str(tmp_path)
    for rank in (0, 1):
        board = TensorBoardLogger(files.join(directory, f"rank{rank}"), log_scores=rank == 0)
        board.log_live(3, {"images_per_s": 100.0, "wait_share": 0.125, "left_s": 9.0})
        board.log_epoch(4, EPOCH)
        if remote:  # a file in an object store cannot grow: it is uploaded after each epoch
            assert scalars(tmp_path / f"rank{rank}")["speed/images_per_s"] == [(3, 100.0)]
        board.close()
    first, second = scalars(tmp_path / "rank0"), scalars(tmp_path / "rank1")
    assert first["train/loss"] == [(4, 0.25)]
    assert first["val/macro_f1"][0][1] == pytest.approx(0.4)
    assert first["speed/data_wait_share"] == second["speed/data_wait_share"] == [(3, 0.125)]
    assert "val/map" not in second


def test_events_that_cannot_be_written_are_logged_once_and_end_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    board = TensorBoardLogger(str(tmp_path / "file" / "rank0"), log_scores=True)
    with caplog.at_level(logging.WARNING, "canopy"):
        board.log_live(1, {"images_per_s": 1.0})
        board.log_epoch(2, EPOCH)
        board.close()
    (record,) = caplog.records
    assert record.message.startswith("TensorBoard events could not be written to ")


def test_any_path_holds_event_files(tmp_path: Path) -> None:
    folder = tmp_path / "Wälder 100% #1?" / "a\nb"
    board = TensorBoardLogger(str(folder), log_scores=True)
    board.log_epoch(2, EPOCH)
    board.close()
    assert scalars(folder)["train/loss"] == [(2, 0.25)]


def test_a_missing_mlflow_package_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tracking(TrackingConfig())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package mlflow.*canopy-eo\[mlflow\]"):
        check_tracking(TrackingConfig(mlflow_uri="http://localhost:5000"))


@pytest.mark.parametrize("run", ["run", "Wälder\n中 #1"])
def test_a_restart_continues_the_mlflow_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str
) -> None:
    mlflow = pytest.importorskip("mlflow", reason=NO_MLFLOW)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a store without a server
    config = TrackingConfig(mlflow_uri=f"{tmp_path.as_uri()}/mlflow", mlflow_experiment="trees")
    run_file, training_run = str(tmp_path / "mlflow.json"), training_in(tmp_path / run)
    for epoch, resumed in ((1, False), (2, True)):
        mlflow_logger = MLflowLogger(config, run_file, training_run, resumed)
        mlflow_logger.log_live(epoch, {"images_per_s": 1.0})
        mlflow_logger.log_epoch(epoch * 10, replace(EPOCH, epoch=epoch))
        mlflow_logger.close()
    client = mlflow.MlflowClient(tracking_uri=config.mlflow_uri)
    (logged,) = client.search_runs([client.get_experiment_by_name("trees").experiment_id])
    assert logged.info.status == "FINISHED"
    assert logged.data.params["optim.batch_size"] == "64"
    assert logged.data.tags["canopy.config_hash"] == training_run.config_hash
    assert [m.step for m in client.get_metric_history(logged.info.run_id, "train/loss")] == [10, 20]


def test_an_mlflow_server_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason=NO_MLFLOW)
    config = TrackingConfig(mlflow_uri="http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"tracking\.mlflow_uri must be an MLflow server"):
        MLflowLogger(config, str(tmp_path / "mlflow.json"), training_in(tmp_path), resumed=False)


class FailingClient:
    """Stands in for MLflow's client once its server has gone away."""

    def __init__(self) -> None:
        self.requests = 0

    def log_batch(self, *_: Any, **__: Any) -> None:
        self.requests += 1
        raise ConnectionError("connection refused")

    def set_terminated(self, _: str) -> None:
        self.requests += 1
        raise ConnectionError("connection refused")


def test_an_mlflow_server_that_goes_away_is_logged_once_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow", reason=NO_MLFLOW)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    config = TrackingConfig(mlflow_uri=f"{tmp_path.as_uri()}/mlflow")
    mlflow_logger = MLflowLogger(config, str(tmp_path / "mlflow.json"), training_in(tmp_path), resumed=False)
    client = FailingClient()
    monkeypatch.setattr(mlflow_logger, "_client", client)
    with caplog.at_level(logging.WARNING, "canopy"):
        mlflow_logger.log_epoch(1, EPOCH)
        mlflow_logger.log_epoch(2, EPOCH)
        mlflow_logger.close()
    (record,) = [one for one in caplog.records if one.name.startswith("canopy")]
    assert "failed, the training goes on without it: ConnectionError: connection refused" in record.message
    assert client.requests == 1


def test_nested_parameters_get_dotted_names() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": None}}, "e": 2}) == {"a.b": 1, "a.c.d": None, "e": 2}
