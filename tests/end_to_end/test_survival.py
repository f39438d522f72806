"""Checkpoints survive signals, full disks, refusing stores and lost nodes: real jobs, real disks."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.clusters import PATIENCE_S, RAY, Job, Nodes, process_of, trainers_under, trains_on
from tests.support import REPOSITORY, committed, end_job, read_json, start_job, wait_until
from tests.train.checkpoint.test_saver import arguments, checkpoints, experiment

from canopy.config import Experiment, derive
from canopy.train.checkpoint.ray_checkpoint_list import SNAPSHOT, SNAPSHOT_COPY
from canopy.train.training_records import TrainingPosition

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared run directory."""
    folder = tmp_path_factory.mktemp("template")
    finish("prepare", arguments(experiment(epochs=1), folder / "run", folder), folder / "log")
    return folder / "run"


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(template, tmp_path / "run"))


def finish(name: str, options: list[str], log: Path) -> None:
    """Run a job that must end with status 0."""
    job = start_job(name, *options, env=environment(), log=log)
    assert job.wait(timeout=PATIENCE_S) == 0, log.read_text()


def environment(**more: str) -> dict[str, str]:
    """Environment in which the job starts its own Ray, even if another one runs here."""
    return {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "local", **more}


def progress_of(run: Path, variant: str = "resnet") -> dict[str, Any]:
    """The progress file, empty when there is none."""
    try:
        found: dict[str, Any] = read_json(run / "train" / variant / "fold0" / "progress.json")
    except (OSError, ValueError):
        return {}
    return found


def test_a_stopped_job_saves_a_checkpoint_and_resumes_to_the_bit(template: Path, tmp_path: Path) -> None:
    config, log = experiment(8, checkpoint_minutes=None), tmp_path / "log"
    whole, cut = (Path(shutil.copytree(template, tmp_path / name)) for name in ("whole", "cut"))
    finish("train", arguments(config, whole, tmp_path), log)
    job = start_job("train", *arguments(config, cut, tmp_path), env=environment(), log=log)
    try:
        wait_until("a step of epoch 2", lambda: progress_of(cut).get("epoch", 0) >= 2, job, log, PATIENCE_S)
        sent = time.monotonic()
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=50) == 143, log.read_text()
    finally:
        end_job(job)
    assert time.monotonic() - sent < 45
    last = log.read_text().splitlines()[-1]
    shape = r"stopped \(SIGTERM\); resnet is kept at (epoch \d+(, step \d+)?)\. The same command .*"
    found = re.fullmatch(shape, last)
    assert found, log.read_text()
    state = progress_of(cut)
    assert (state["state"], state["kept_at"]) == ("stopped", found[1])
    assert not (cut / "train" / "stop.json").exists()
    (place,) = checkpoints(next((cut / "train" / "ray").iterdir())).values()

    finish("train", arguments(config, cut, tmp_path), log)
    folder = Path("train", "resnet", "fold0")
    assert read_json(cut / folder / "facts.json")["resumed"], place
    ours, theirs = (read_json(one / folder / "history.json") for one in (cut, whole))
    for record in (*ours, *theirs):
        assert record.pop("images_per_s") > 0
        assert record.pop("seconds") > 0
    assert ours == theirs
    weights = [(one / folder / "weights.safetensors").read_bytes() for one in (cut, whole)]
    assert weights[0] == weights[1]


def test_a_stopped_job_does_not_wait_for_a_training_without_progress(run: Path, tmp_path: Path) -> None:
    config, log = experiment(1), tmp_path / "log"
    job = start_job("train", *arguments(config, run, tmp_path), env=environment(), log=log)
    try:
        wait_until("the start", lambda: "resnet starts" in log.read_text(), job, log, PATIENCE_S)
        job.send_signal(signal.SIGINT)
        assert job.wait(timeout=20) == 130, log.read_text()
    finally:
        end_job(job)
    assert "resnet is kept at its last checkpoint, if it has one" in log.read_text()


@pytest.mark.parametrize("grace_s", [2.0, 900.0])
def test_a_hanging_training_is_ended_after_the_grace_or_by_a_second_signal(
    grace_s: float, run: Path, tmp_path: Path
) -> None:
    """It hangs within a step, as in a long evaluation."""
    config, log = experiment(12, checkpoint_steps=20, stop_grace_s=grace_s), tmp_path / "log"
    job = start_job("train", *arguments(config, run, tmp_path), env=environment(), log=log)
    trainer = None
    try:
        wait_until("a checkpoint", lambda: committed(run), job, log, PATIENCE_S)
        (trainer,) = trainers_under(process_of(job.pid))
        trainer.suspend()
        job.send_signal(signal.SIGTERM)
        wait_until("the word", lambda: "SIGTERM: every training" in log.read_text(), job, log)
        if grace_s > PATIENCE_S:
            job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=30) == 143, log.read_text()
    finally:
        end_job(job)
        if trainer is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(trainer.pid, signal.SIGKILL)
    last = log.read_text().splitlines()[-1]
    (place,) = checkpoints(next((run / "train" / "ray").iterdir())).values()
    position = TrainingPosition(epoch=place[0], step=place[1]).position
    assert f"stopped (SIGTERM); resnet is kept at {position}. The same command" in last

    finish("train", arguments(config, run, tmp_path), log)
    assert read_json(run / "train" / "resnet" / "fold0" / "facts.json")["resumed"]


def fill(path: Path) -> None:
    """Fill the disk."""
    with path.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(b"\0" * 4096)


def newest(folder: Path) -> str:
    """Name of the newest checkpoint in the list, or in its copy if the list was cut off."""
    try:
        state = read_json(folder / SNAPSHOT)
    except ValueError:
        state = read_json(folder / SNAPSHOT_COPY)
    return str(state["latest_checkpoint_result"]["checkpoint_dir_name"])


def test_a_full_disk_ends_the_training_and_the_last_checkpoint_stays(run: Path, tmp_path: Path) -> None:
    config, log = experiment(30, checkpoint_steps=20, max_failures=0), tmp_path / "log"
    disk = run / "train"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    job = start_job("train", *arguments(config, run, tmp_path), env=environment(), log=log)
    try:
        wait_until("a checkpoint", lambda: list(disk.glob(f"ray/*/{SNAPSHOT_COPY}")), job, log, PATIENCE_S)
        fill(disk / "filler")
        assert job.wait(timeout=PATIENCE_S) == 1, log.read_text()
        last = log.read_text().splitlines()[-1]
        shape = r"error: 1 of 1 trainings failed: resnet: variant resnet: the (checkpoint|list) .* must be "
        shape += rf"writable to {disk}/ray\. Got: No space left on device\. .* good.*\. The others are .*"
        assert re.fullmatch(shape, last), log.read_text()
        folder = next((disk / "ray").iterdir())
        good = read_json(folder / newest(folder) / "progress.json")["progress"]  # not an unfinished one
        begun = time.time()
        (disk / "filler").unlink()
        job = start_job("train", *arguments(config, run, tmp_path), env=environment(), log=log)
        wait_until(
            "a step",
            lambda: progress_of(run).get("time", 0) > begun and "step" in progress_of(run),
            job,
            log,
            PATIENCE_S,
        )
        assert (progress_of(run)["epoch"], progress_of(run)["step"]) > (good["epoch"], good["step"]), (
            "it resumed from an older checkpoint"
        )
        assert job.wait(timeout=PATIENCE_S) == 0, log.read_text()
        assert read_json(disk / "resnet" / "fold0" / "facts.json")["resumed"]
        assert len(checkpoints(folder)) == 1
        assert len([one for one in folder.iterdir() if one.is_dir()]) == 1, "unfinished checkpoints"
    finally:
        end_job(job)
        subprocess.run(["umount", "-l", str(disk)], check=True)


class RefusingStore:
    """An object store (moto, with the real protocol) that refuses checkpoints while ``refuses`` is set."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._store = DomainDispatcherApplication(create_backend_app)
        self.refuses = False
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def _answer(self, request: dict[str, Any], respond: Any) -> Any:
        writes = request["REQUEST_METHOD"] in {"PUT", "POST"}
        if self.refuses and writes and re.search(r"/checkpoint_\d", request["PATH_INFO"]):
            respond("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        return self._store(request, respond)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()


def test_a_store_that_refuses_ends_the_training_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    from canopy.storage import files

    config, log = experiment(40, checkpoint_steps=20, max_failures=0), tmp_path / "log"
    store = RefusingStore()
    env = environment(AWS_ENDPOINT_URL=store.url)
    where = f"s3://canopy/run?endpoint_override={store.url.removeprefix('http://')}&scheme=http"
    urllib.request.urlopen(urllib.request.Request(f"{store.url}/canopy", method="PUT")).close()

    def listed() -> bool:
        with contextlib.suppress(OSError):
            found = files.list_files(files.join(where, "train/ray"), recursive=True)
            return any(name.endswith(f"/{SNAPSHOT_COPY}") for name in found)
        return False

    def start_it() -> subprocess.Popen[bytes]:
        options = [*arguments(config, "s3://canopy/run", tmp_path), "--data.root", str(tmp_path / "chips")]
        return start_job("pipeline", *options, env=env, log=log)

    job = start_it()
    try:
        wait_until("a checkpoint", listed, job, log, PATIENCE_S)
        store.refuses = True
        assert job.wait(timeout=PATIENCE_S) == 1, log.read_text()
        last = log.read_text().splitlines()[-1]
        shape = (
            r"error: 1 of 1 trainings failed: resnet: variant resnet: the checkpoint of .* must be writable "
        )
        shape += (
            r"to s3://canopy/run/train/ray\. Got: .*ACCESS_DENIED.* Last good: (.*)\. Free .* The others .*"
        )
        found = re.fullmatch(shape, last)
        assert found, log.read_text()
        assert found[1] != "none yet"
        store.refuses = False
        job = start_it()
        assert job.wait(timeout=2 * PATIENCE_S) == 0, log.read_text()
        assert files.read_json(files.join(where, "train/resnet/fold0/facts.json"))["resumed"]
    finally:
        end_job(job)
        store.close()


def drain(address: str, node: str, seconds: float) -> None:
    """Announce that a node will be taken away, as ``ray drain-node`` does."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason  # type: ignore[attr-defined]

    deadline_ms = int((time.time() + seconds) * 1000)
    reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    accepted, why = GcsClient(address=address).drain_node(node, reason, "taken back", deadline_ms)
    assert accepted, why


def test_an_announced_preemption_causes_a_checkpoint(
    nodes: Nodes,
    start: Callable[[Experiment], Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the announcement can cause a checkpoint within an epoch here; it does not count as a failure."""
    monkeypatch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "1")  # as runtime_env.yaml has it
    seats = [nodes.add(), nodes.add()]
    config = experiment(20, batch_size=2, checkpoint_minutes=None, max_failures=0, max_preemption_failures=1)
    (variant,) = config.variants
    variant = derive(variant, scale=derive(variant.scale, accelerator="seat"))
    job = start(derive(config, variants=(variant,)))
    job.wait_for("training", lambda: job.progress().get("step", 0) > 1)
    (going,) = [node for node in seats if trains_on(node)]
    drain(nodes.address, going.node_id, seconds=30)
    job.wait_for("a checkpoint within an epoch", lambda: "step" in job.progress().get("kept_at", ""))
    kept = job.progress()["kept_at"]
    time.sleep(3)  # Ray Train puts it on its list
    nodes.kill(going)
    killed = time.time()
    job.wait_for(
        "the next start",
        lambda: job.progress()["time"] > killed and job.progress()["state"] == "training",
    )
    epoch, step = (int(number) for number in re.findall(r"\d+", kept))
    now = job.progress()
    assert (now["epoch"], now["step"]) > (epoch, step), "it resumed from before the announcement"
    assert [record["epoch"] for record in job.ends_well()] == list(range(1, 21))


def test_ray_job_stop_ends_with_a_checkpoint(head: str, run: Path, tmp_path: Path) -> None:
    config = experiment(200)
    ray = [RAY, "job"]
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": head}
    submit = [*ray, "submit", "--no-wait", "--submission-id", "it"]
    submit += ["--runtime-env", "platform/deploy/runtime_env.yaml", "--", sys.executable, "jobs/train.py"]
    submit += arguments(config, run, tmp_path)
    subprocess.run(submit, check=True, cwd=REPOSITORY, env=env, capture_output=True)
    finish = time.monotonic() + PATIENCE_S
    while progress_of(run).get("state") != "training":
        assert time.monotonic() < finish
        time.sleep(0.2)
    begun = time.monotonic()
    done = subprocess.run([*ray, "stop", "it"], env=env, capture_output=True, text=True, timeout=90)
    assert "was stopped" in done.stdout + done.stderr, done.stdout + done.stderr
    assert time.monotonic() - begun < 55, "it was killed"
    logs = subprocess.run([*ray, "logs", "it"], env=env, capture_output=True, text=True, timeout=60).stdout
    assert "stopped (SIGTERM); resnet is kept at epoch" in logs, logs
    assert progress_of(run)["state"] == "stopped"
    folder = next((run / "train" / "ray").iterdir())
    assert len(checkpoints(folder)) == 1
