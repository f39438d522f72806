"""TensorBoard's event files in the run directory, and runs of an MLflow server where one is named."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from canopy.config import TrackingConfig
from canopy.errors import ConfigError
from canopy.storage import files
from canopy.train.training_run import TrainingRun

SCALARS = {
    "train_loss": "train/loss",
    "lr": "train/lr",
    "score": "val/score",
    "val_map": "val/map",
    "val_macro_f1": "val/macro_f1",
    "images_per_s": "speed/images_per_s_all_ranks",
    "seconds": "speed/epoch_seconds",
}
"""An epoch's figures by their names in TensorBoard and MLflow."""
LIVE = {
    "images_per_s": "speed/images_per_s",
    "wait_share": "speed/data_wait_share",
    "gpu_bytes": "device/gpu_bytes",
}


class TensorBoardLogger:
    """An event file of one rank: ``tensorboard --logdir RUN_DIR/train`` shows every variant, fold and rank.

    In an object store a file cannot grow: there the events go to a temporary folder, and the files are
    written anew after each epoch and at the end.

    Args:
        directory: path or URI for the event files.
        scores: also the epoch's figures, which are the same on every rank.
    """

    def __init__(self, directory: str, scores: bool) -> None:
        self._goal = directory if files.is_uri(directory) else None
        self._local = Path(tempfile.mkdtemp() if self._goal else directory)
        self._scores = scores
        # Its writer without its thread and queue: a few events per second are quickly written.
        self._event = importlib.import_module("tensorboardX.proto.event_pb2")
        self._scalar = importlib.import_module("tensorboardX.summary").scalar
        self._file: Any = None

    def live(self, step: int, figures: Mapping[str, float]) -> None:
        """See :class:`canopy.train.monitor.callbacks.MetricsLogger`."""
        self._write(step, LIVE, figures)

    def epoch(self, step: int, record: Mapping[str, float]) -> None:
        """See :class:`canopy.train.monitor.callbacks.MetricsLogger`."""
        if self._scores:
            self._write(step, SCALARS, record)
        self._publish()

    def close(self) -> None:
        """See :class:`canopy.train.monitor.callbacks.MetricsLogger`."""
        self._publish()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        if self._goal is not None:
            shutil.rmtree(self._local, ignore_errors=True)

    def _write(self, step: int, names: Mapping[str, str], figures: Mapping[str, float]) -> None:
        now, event = time.time(), self._event
        with contextlib.suppress(OSError):  # a full disk must not end a training for the sake of a curve
            if self._file is None:
                self._file = self._open()
                # What an earlier start wrote from this step on is not shown: it is done again.
                begin = event.SessionLog(status=event.SessionLog.START)
                self._file.write_event(event.Event(wall_time=now, step=step, session_log=begin))
            for name, shown in names.items():
                if name in figures:
                    summary = self._scalar(shown, float(figures[name]))
                    self._file.write_event(event.Event(wall_time=now, step=step, summary=summary))
            self._file.flush()

    def _open(self) -> Any:
        writer = importlib.import_module("tensorboardX.event_file_writer")
        self._local.mkdir(parents=True, exist_ok=True)
        return writer.EventsWriter(str(self._local / "events"))

    def _publish(self) -> None:
        if self._goal is None or self._file is None:
            return
        with contextlib.suppress(OSError, ValueError):
            for file in self._local.iterdir():
                files.write_bytes(files.join(self._goal, file.name), file.read_bytes())


class MLflowLogger:
    """One MLflow run per training, written by rank 0; a restart goes on in the same one.

    A server that stops answering is left alone from then on: the training matters more.

    Args:
        config: names the server and the experiment.
        memory: path or URI of a small file that remembers the run for a restart.
        unit: its variant's parameters are logged.
        resumed: whether a checkpoint was there to go on from.

    Raises:
        ConfigError: when the package is missing, or when the server does not answer at the start.
    """

    def __init__(self, config: TrackingConfig, memory: str, training_run: TrainingRun, resumed: bool) -> None:
        check_tracking(config)
        # Its own patience is minutes per call, which would be the training's.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self._mlflow: Any = importlib.import_module("mlflow")
        assert config.mlflow_uri is not None
        self._failed = (self._mlflow.MlflowException, OSError)
        self._alive = True
        try:
            self._client = self._mlflow.MlflowClient(tracking_uri=config.mlflow_uri)
            self._run = self._known(memory) if resumed else None
            self._run = self._run or self._new(config.mlflow_experiment, training_run)
        except self._failed as error:
            remedy = "Start the server, correct the address, or drop tracking.mlflow_uri."
            got = f"{files.shown(config.mlflow_uri)} ({str(error).splitlines()[0]})"
            raise ConfigError("tracking.mlflow_uri", "must be an MLflow server", got, remedy) from None
        with contextlib.suppress(OSError, ValueError):
            files.write_json(memory, {"run": self._run, "uri": files.shown(config.mlflow_uri)})

    def live(self, step: int, figures: Mapping[str, float]) -> None:
        """Nothing between epochs: a server is not asked every second."""

    def epoch(self, step: int, record: Mapping[str, float]) -> None:
        """See :class:`canopy.train.monitor.callbacks.MetricsLogger`."""
        metric = self._mlflow.entities.Metric
        now = int(time.time() * 1000)
        metrics = [metric(SCALARS[k], float(v), now, step) for k, v in record.items() if k in SCALARS]
        self._try(lambda: self._client.log_batch(self._run, metrics=metrics))

    def close(self) -> None:
        """See :class:`canopy.train.monitor.callbacks.MetricsLogger`."""
        self._try(lambda: self._client.set_terminated(self._run))

    def _try(self, call: Any) -> None:
        if self._alive:
            try:
                call()
            except self._failed:
                self._alive = False

    def _known(self, memory: str) -> str | None:
        if not files.exists(memory):
            return None
        run: str = files.read_json(memory)["run"]
        self._client.update_run(run, status="RUNNING")
        return run

    def _new(self, experiment: str, training_run: TrainingRun) -> str:
        tags = {"canopy.run": files.shown(training_run.run), "canopy.config_hash": training_run.config_hash}
        found = self._client.get_experiment_by_name(experiment)
        owner = found.experiment_id if found else self._client.create_experiment(experiment)
        run: str = self._client.create_run(owner, run_name=training_run.name, tags=tags).info.run_id
        flat = flattened(training_run.variant.model_dump(mode="json"))
        param = self._mlflow.entities.Param
        self._client.log_batch(run, params=[param(key, str(value)[:500]) for key, value in flat.items()])
        return run


def check_tracking(config: TrackingConfig) -> None:
    """Refuse a tracker that is asked for and not installed.

    Raises:
        ConfigError: naming the extra.
    """
    if config.mlflow_uri is not None and importlib.util.find_spec("mlflow") is None:
        remedy = "Install the extra, canopy[mlflow], here and on the nodes: uv sync --extra mlflow."
        raise ConfigError("tracking.mlflow_uri", "needs the package mlflow", "none installed", remedy)


def flattened(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested dictionary with dotted names."""
    if not isinstance(value, dict):
        return {prefix: value}
    out: dict[str, Any] = {}
    for key, inner in value.items():
        out |= flattened(inner, f"{prefix}.{key}" if prefix else str(key))
    return out
