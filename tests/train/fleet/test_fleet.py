"""The fleet on a real Ray: all trainings run, a failing one leaves the others untouched."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
from tests.ray_state import actor_names
from tests.support import read_json, tiny_experiment, write_config

from canopy.config import Experiment, VariantConfig, derive
from canopy.runtime.console import Console
from canopy.storage.run_dir import RunDir
from canopy.train.fleet.fleet import Fleet, describe_training
from canopy.train.fleet.scheduler import ResourceRequest
from canopy.train.fleet.shutdown import ShutdownHandler
from canopy.train.fleet.trainer import FleetContext
from canopy.train.monitor.live_display import LiveDisplay
from canopy.train.training_run import TrainingRun
from jobs import prepare, train


def test_a_training_is_described_by_network_loss_epochs_and_workers(tiny: Experiment) -> None:
    variant = derive(tiny.variants[1], loss=derive(tiny.variants[1].loss, gamma=1.5, alpha=0.4))
    text = describe_training(TrainingRun(variant, 0, 1, "/run", "", ""))
    assert text == "test_resnet + CBAM (last), focal, γ 1.5, α 0.4, 2 epochs, 1 worker"


@pytest.fixture
def one_bad_variant(tmp_path: Path) -> tuple[Path, Path]:
    """A config of a good variant on two workers and one whose loss overflows; a run directory."""
    config = tiny_experiment(variants=3, trials=0, epochs=2)
    _, bad, good = config.variants
    bad = derive(bad, optim=derive(bad.optim, lr=1e30))
    return write_config(derive(config, variants=(good, bad)), tmp_path / "c.yaml"), tmp_path / "run"


def workers_started() -> int:
    """Number of training workers that this Ray has ever started."""
    state: Any = ray._private.state.state
    return sum(actor["ActorClassName"] == "RayTrainWorker" for actor in state.actor_table(None).values())


@pytest.mark.usefixtures("ray_here")
def test_a_training_that_diverges_fails_without_restart_and_the_others_finish(
    one_bad_variant: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file, run = one_bad_variant
    arguments = ["--config", str(file), "--run-dir", str(run)]
    before = workers_started()
    assert prepare.main(arguments) == 0
    assert train.main(arguments) == 1
    out, error = capsys.readouterr()
    assert "1 of 2 trainings failed: resnet-cbam: variant resnet-cbam: " in error
    assert "Lower optim.lr" in error
    assert workers_started() - before == 2 + 1, "a restart cannot help here"
    names = actor_names()
    assert {f"train run efficientnet fold 0 worker {n} of 2" for n in (1, 2)} <= names
    assert any(name.startswith("control resnet-cbam-fold0-") for name in names)
    record = read_json(run / "train" / "resnet-cbam" / "fold0" / "progress.json")
    assert (record["state"], record["reason"][:19]) == ("failed", "variant resnet-cbam")
    assert (run / "train" / "efficientnet" / "fold0" / "done.json").exists()
    for rank, name in enumerate(("progress.json", "progress-rank1.json")):
        record = read_json(run / "train" / "efficientnet" / "fold0" / name)
        assert (record["state"], record["rank"], record["ranks"], record["kept"]) == ("done", rank, 2, 2)
        assert 0 <= record["wait_share"] <= 1
        assert record["images_per_s"] > 0
        assert list((run / "train" / "efficientnet" / "fold0" / "tensorboard" / f"rank{rank}").iterdir())
    assert "efficientnet epoch 2/2: loss 0." in out
    assert "efficientnet done: best epoch" in out
    for noise in ("INFO", "WARNING", "(pid=", "Traceback", "(raylet)", "(TrainController"):
        assert noise not in out + error


def test_trainings_that_outlast_the_abort_are_waited_for_without_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the abort Ray is gone, and ``fit()`` takes some turns to end."""
    aborted: list[bool] = []

    def nodes() -> list[dict[str, Any]]:
        assert not aborted, "Ray has not been started yet"
        return []

    monkeypatch.setattr(ray, "nodes", nodes)
    monkeypatch.setattr(ray, "shutdown", lambda: aborted.append(True))
    monkeypatch.setattr("canopy.train.fleet.fleet.POLL_EVERY_S", 0.05)
    training_run = TrainingRun(VariantConfig(name="v"), 0, 1, str(tmp_path), "f" * 64, "c" * 64)
    run_dir, console = RunDir(str(tmp_path)), Console()
    display = LiveDisplay([training_run], run_dir, console, 1.0)
    shutdown = ShutdownHandler(run_dir, 0.0, console)
    source: Any = None  # nothing is started
    context = FleetContext(source, run_dir, tiny_experiment(), shutdown.stopping, display.on_wait)
    with ThreadPoolExecutor() as pool, shutdown:

        def waited() -> str | None:
            time.sleep(0.5)
            return "epoch 1"

        fleet = Fleet({training_run.name: training_run}, [], pool, context, display, shutdown)
        waiting = pool.submit(waited)
        fleet._running[waiting] = ResourceRequest(training_run.name, 1.0, ())
        os.kill(os.getpid(), signal.SIGTERM)
        fleet.run()
    assert len(aborted) > 1
    assert "v is kept at epoch 1" in str(shutdown.stopped_error())
    assert fleet._done == 0, "a training that was stopped is not done"
