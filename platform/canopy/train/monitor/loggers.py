"""Loggers of metrics: TensorBoard's event files in the run directory, and runs of an MLflow server."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from canopy.config import TrackingConfig
from canopy.errors import ConfigError
from canopy.storage import files
from canopy.train.monitor.suppressed_errors import SuppressedErrors
from canopy.train.training_records import EpochRecord
from canopy.train.training_run import TrainingRun

EPOCH_NAMES = {
    "train_loss": "train/loss",
    "lr": "train/lr",
    "score": "val/score",
    "val_map": "val/map",
    "val_macro_f1": "val/macro_f1",
    "images_per_s": "speed/images_per_s_all_ranks",
    "seconds": "speed/epoch_seconds",
}
"""Names in TensorBoard and MLflow of the fields of an epoch's record."""
LIVE_NAMES = {
    "images_per_s": "speed/images_per_s",
    "wait_share": "speed/data_wait_share",
    "gpu_bytes": "device/gpu_bytes",
    "gpu_utilization": "device/gpu_utilization",
}
"""Names in TensorBoard of the metrics between the ends of epochs."""
PARAMETER_LENGTH = 500
"""Characters of a parameter that MLflow accepts."""

logger = logging.getLogger(__name__)


class TensorBoardLogger:
    """Writes an event file of one rank; ``tensorboard --logdir RUN_DIR/train`` shows all of them.

    A file in an object store cannot grow: there the events go to a temporary folder, and the files are
    uploaded after each epoch and at the end. A write that fails is logged and does not end the training.

    Args:
        directory: path or URI for the event files.
        log_scores: whether to log the epochs' records, which are the same on every rank.
    """

    def __init__(self, directory: str, log_scores: bool) -> None:
        self._upload_to = directory if files.is_uri(directory) else None
        self._folder = Path(tempfile.mkdtemp() if self._upload_to else directory)
        self._log_scores = log_scores
        self._errors = SuppressedErrors(logger)
        self._problem = f"TensorBoard events could not be written to {files.shown(directory)}"
        # tensorboardX's writer without its thread and queue: a few events per second need neither.
        self._event = importlib.import_module("tensorboardX.proto.event_pb2")
        self._scalar = importlib.import_module("tensorboardX.summary").scalar
        self._writer: Any = None

    def log_live(self, step: int, metrics: Mapping[str, float]) -> None:
        """See :class:`canopy.train.monitor.training_monitor.MetricsLogger`."""
        self._write(step, LIVE_NAMES, metrics)

    def log_epoch(self, step: int, record: EpochRecord) -> None:
        """See :class:`canopy.train.monitor.training_monitor.MetricsLogger`."""
        if self._log_scores:
            self._write(step, EPOCH_NAMES, record.to_json())
        self._upload()

    def close(self) -> None:
        """See :class:`canopy.train.monitor.training_monitor.MetricsLogger`."""
        self._upload()
        if self._writer is not None:
            with self._errors.suppress(self._problem, OSError):
                self._writer.close()
        if self._upload_to is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, step: int, names: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        now, event = time.time(), self._event
        with self._errors.suppress(self._problem, OSError):
            if self._writer is None:
                self._writer = self._open()
                # TensorBoard then hides what an earlier start wrote from this step on.
                start = event.SessionLog(status=event.SessionLog.START)
                self._writer.write_event(event.Event(wall_time=now, step=step, session_log=start))
            for key, name in names.items():
                if key in metrics:
                    summary = self._scalar(name, float(metrics[key]))
                    self._writer.write_event(event.Event(wall_time=now, step=step, summary=summary))
            self._writer.flush()

    def _open(self) -> Any:
        writer = importlib.import_module("tensorboardX.event_file_writer")
        self._folder.mkdir(parents=True, exist_ok=True)
        return writer.EventsWriter(str(self._folder / "events"))

    def _upload(self) -> None:
        if self._upload_to is None or self._writer is None:
            return
        with self._errors.suppress(self._problem, OSError, ValueError):
            for file in self._folder.iterdir():
                files.write_bytes(files.join(self._upload_to, file.name), file.read_bytes())


class MLflowLogger:
    """One MLflow run per training, written by rank 0; a restart continues the same run.

    When the server stops answering, one warning is logged and nothing more is sent: waiting for it would
    slow down the training.

    Args:
        config: server and experiment.
        run_file: path or URI of a small JSON file that keeps the run's id for a restart.
        training_run: the training; the parameters of its variant are logged.
        resumed: whether the training resumes from a checkpoint.

    Raises:
        ConfigError: when the package is missing, or when the server does not answer at the start.
    """

    def __init__(
        self, config: TrackingConfig, run_file: str, training_run: TrainingRun, resumed: bool
    ) -> None:
        check_tracking(config)
        # MLflow's defaults wait for minutes per call; the training would wait with it.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self._mlflow: Any = importlib.import_module("mlflow")
        assert config.mlflow_uri is not None
        self._server = files.shown(config.mlflow_uri)
        self._errors = SuppressedErrors(logger)
        self._server_errors = (self._mlflow.MlflowException, OSError)
        self._reachable = True
        try:
            self._client = self._mlflow.MlflowClient(tracking_uri=config.mlflow_uri)
            self._run = self._resume_run(run_file) if resumed else None
            self._run = self._run or self._create_run(config.mlflow_experiment, training_run)
        except self._server_errors as error:
            remedy = "Start the server, correct the address, or drop tracking.mlflow_uri."
            got = f"{self._server} ({str(error).splitlines()[0]})"
            raise ConfigError("tracking.mlflow_uri", "must be an MLflow server", got, remedy) from None
        with self._errors.suppress(
            f"{files.shown(run_file)} could not be written, a restart will begin another MLflow run",
            OSError,
            ValueError,
        ):
            files.write_json(run_file, {"run": self._run, "uri": self._server})

    def log_live(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing is sent between the ends of epochs: a request per second would load the server."""

    def log_epoch(self, step: int, record: EpochRecord) -> None:
        """See :class:`canopy.train.monitor.training_monitor.MetricsLogger`."""
        metric = self._mlflow.entities.Metric
        now_ms = int(time.time() * 1000)
        values = record.to_json()
        metrics = [metric(name, float(values[key]), now_ms, step) for key, name in EPOCH_NAMES.items()]
        self._call(lambda: self._client.log_batch(self._run, metrics=metrics))

    def close(self) -> None:
        """See :class:`canopy.train.monitor.training_monitor.MetricsLogger`."""
        self._call(lambda: self._client.set_terminated(self._run))

    def _call(self, request: Callable[[], None]) -> None:
        if not self._reachable:
            return
        try:
            request()
        except self._server_errors as error:
            self._reachable = False
            problem = f"The MLflow server {self._server} failed, the training goes on without it"
            self._errors.log(problem, error)

    def _resume_run(self, run_file: str) -> str | None:
        if not files.exists(run_file):
            return None
        run: str | None = None
        with self._errors.suppress(
            f"{files.shown(run_file)} is damaged, a new MLflow run begins", ValueError, KeyError
        ):
            run = files.read_json(run_file)["run"]
        if run is not None:
            self._client.update_run(run, status="RUNNING")
        return run

    def _create_run(self, experiment: str, training_run: TrainingRun) -> str:
        tags = {
            "canopy.run": files.shown(training_run.run_root),
            "canopy.config_hash": training_run.config_hash,
        }
        found = self._client.get_experiment_by_name(experiment)
        experiment_id = found.experiment_id if found else self._client.create_experiment(experiment)
        run: str = self._client.create_run(experiment_id, run_name=training_run.name, tags=tags).info.run_id
        flat = flatten(training_run.variant.model_dump(mode="json"))
        param = self._mlflow.entities.Param
        params = [param(key, str(value)[:PARAMETER_LENGTH]) for key, value in flat.items()]
        self._client.log_batch(run, params=params)
        return run


def check_tracking(config: TrackingConfig) -> None:
    """Refuse a configured tracker whose package is not installed.

    Raises:
        ConfigError: naming the extra to install.
    """
    if config.mlflow_uri is not None and importlib.util.find_spec("mlflow") is None:
        remedy = "Install the extra, canopy-eo[mlflow], here and on the nodes: uv sync --extra mlflow."
        raise ConfigError("tracking.mlflow_uri", "needs the package mlflow", "none installed", remedy)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested dictionary as a flat one with dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat
