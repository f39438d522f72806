"""``canopy status``: the progress of a run from its files alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support import REPOSITORY, tiny_experiment

from canopy.config import derive
from canopy.storage import files
from canopy.storage.run_dir import RunDir
from jobs import status


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with nothing but the config of three variants, the last on two workers."""
    run_dir = RunDir(str(tmp_path / "run"))
    run_dir.store_config(tiny_experiment())
    return tmp_path / "run"


def write_record(run: Path, name: str, rank: int = 0, **fields: Any) -> None:
    """A progress file as a rank leaves it."""
    file = "progress.json" if rank == 0 else f"progress-rank{rank}.json"
    record = {"name": name, "rank": rank, "ranks": 1, "state": "training", "epochs": 2, "time": time.time()}
    files.write_json(str(run / "train" / name / "fold0" / file), {**record, **fields})


def shown(run: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The printed lines by their first words."""
    capsys.readouterr()
    assert status.main([str(run)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {" ".join(line.split()[:2]) if "rank" in line else line.split()[0]: line for line in lines if line}


def test_a_run_without_any_stage(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(run, capsys)
    for stage in ("prepare", "sweep", "train", "ensemble", "report"):
        assert lines[stage].split(maxsplit=1)[1] == "to do"
    assert "waiting" in lines["resnet-cbam"]


def test_every_variant_and_rank(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunDir(str(run)).finish("prepare", "f", seconds=12.4)
    files.write_json(str(run / "sweep" / "trials" / "abc-0.json"), {})
    figures: dict[str, Any] = {
        "train_loss": 0.125,
        "val_map": 0.5,
        "val_macro_f1": 0.25,
        "scored": 1,
        "kept": 1,
    }
    write_record(
        run, "resnet", epoch=2, step=3, steps=9, images_per_s=812.0, wait_share=0.04, left_s=42.0, **figures
    )
    place = {"epoch": 1, "step": 2, "steps": 9, "ranks": 2}
    write_record(run, "efficientnet", **place, images_per_s=300.0)
    write_record(run, "efficientnet", rank=1, **place, images_per_s=290.0, time=time.time() - 600)
    write_record(run, "resnet-cbam", state="failed", reason="model.weights must be a file. Got: x.")
    lines = shown(run, capsys)
    assert "done in 12 s" in lines["prepare"]
    assert "1 of 2 trials ended" in lines["sweep"]
    assert "0 of 3 trainings done, 1 failed" in lines["train"]
    assert " ".join(lines["resnet"].split()) == "resnet training 2/2 3/9 812 4% 0.1250 0.500 0.250 1 0:42"
    assert "300" in lines["efficientnet"]
    assert "training, no sign for 10 min" in lines["rank 1"]
    assert "290" in lines["rank 1"]
    assert lines["resnet-cbam:"].endswith("model.weights must be a file. Got: x.")


def test_a_finished_training_that_starts_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(run, "resnet", state="done", epoch=2)
    assert "ending" in shown(run, capsys)["resnet"]
    RunDir(str(run)).finish("train/resnet/fold0", "f", end=time.time())
    assert "done" in shown(run, capsys)["resnet"]
    write_record(run, "resnet", state="starting", time=time.time() + 5)
    assert "starting" in shown(run, capsys)["resnet"]


def test_every_fold_has_its_row(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunDir(str(run)).store_config(derive(tiny_experiment(variants=1, trials=0), folds=3))
    lines = shown(run, capsys)
    assert "not wanted" in lines["sweep"]
    assert {"resnet/fold0", "resnet/fold1", "resnet/fold2"} <= lines.keys()


def test_members_of_a_sweep_have_a_row_each(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = tiny_experiment(variants=1)
    RunDir(str(run)).store_config(derive(tiny, sweep=derive(tiny.sweep, trials=4, members=3)))
    assert {"resnet-1", "resnet-2", "resnet-3"} <= shown(run, capsys).keys()


def test_a_directory_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "must hold a config.yaml. Got: none." in error
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"old": 1}))
    assert status.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "Use the version of Canopy that made the run" in error
    assert error.count("\n") == 1


def test_watching_ends_at_an_interrupt_and_never_imports_ray(run: Path) -> None:
    code = (
        "import sys; from jobs import status; result = status.main(sys.argv[1:]); "
        "assert not {'ray', 'torch'} & sys.modules.keys(); sys.exit(result)"
    )
    command = [sys.executable, "-c", code, str(run), "--watch", "--every", "0.1"]
    env = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
    monitor = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True)
    assert monitor.stdout is not None
    first = monitor.stdout.readline()  # it has started
    monitor.send_signal(2)
    rest, _ = monitor.communicate(timeout=60)
    assert monitor.returncode == 0
    assert "tiny in" in first + rest


def test_damaged_files_count_as_absent(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run / "train" / "resnet" / "fold0"
    files.write_bytes(str(folder / "progress.json"), b'{"name": "resnet", "state"')
    files.write_bytes(str(folder / "done.json"), b"[1]")
    assert "waiting" in shown(run, capsys)["resnet"]
