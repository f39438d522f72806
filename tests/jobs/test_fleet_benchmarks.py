"""The fleet benchmarks at a small size; only the benchmarks themselves run whole trainings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jobs.benchmarks.fleet import gpu, timeline, whole_training
from jobs.benchmarks.fleet.__main__ import main
from jobs.benchmarks.fleet.gpu import GpuTraining
from jobs.benchmarks.fleet.timeline import process_start_time, read_timeline, record_event, time_functions
from jobs.benchmarks.fleet.workload import OurLoop, PlainLoop, Workload, workload
from jobs.benchmarks.measurement import Report

from canopy.config import AugmentConfig, ModelConfig, OptimConfig, ResourcesConfig
from canopy.train.fleet import worker
from canopy.train.training_phase import TrainingPhase


@pytest.fixture
def work() -> Iterator[Workload]:
    model, optim = ModelConfig(backbone="test_resnet"), OptimConfig(epochs=2, batch_size=8)
    with workload("test", model, optim, ResourcesConfig(), rows=20, size=32) as found:
        yield found
    assert not Path(found.run_dir.root).exists()


@pytest.mark.usefixtures("ray_here")
def test_both_loops_reach_the_same_loss(work: Workload) -> None:
    ours, plain = OurLoop(work), PlainLoop(work)
    assert ours() == plain() == work.images == 32
    assert ours.last_loss == pytest.approx(plain.last_loss, rel=1e-3)
    assert ours.last_loss < 1


@pytest.mark.usefixtures("ray_here")
def test_the_gpu_benchmark_measures_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    optim = OptimConfig(epochs=1000, batch_size=8, precision="bfloat16")
    flips, model = AugmentConfig(place="device"), ModelConfig(backbone="test_resnet")
    report = Report("gpu", None)
    with workload("test-gpu", model, optim, ResourcesConfig(), rows=20, size=32, augment=flips) as work:
        gpu.measure(GpuTraining.of(work, "cpu", compiled=False), repeats=2, steps=3, report=report)
    report.show()
    out = capsys.readouterr().out
    assert "eager: images/s, stream / resident" in out
    assert "eager: share of time waiting for batches" in out


def test_a_missing_requirement_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["gpu"]) == 2
    assert main(["ddp", "--gpus", "2"]) == 2
    assert main(["loop", "--rows", "8", "--batch-size", "64"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert [line.partition(" must be")[0].partition(" needs")[0] for line in error] == [
        "error: The gpu benchmark",
        "error: --gpus",
        "error: --rows",
    ]


def test_each_part_of_a_training_begins_where_the_previous_one_ends(tmp_path: Path) -> None:
    starts, ends = (
        [since for _, since, _ in whole_training.STEPS],
        [until for _, _, until in whole_training.STEPS],
    )
    assert starts[1:] == ends[:-1]
    assert (starts[0], ends[-1]) == ("fit", "fit returned")
    source = Path(timeline.__file__).read_text() + Path(whole_training.__file__).read_text()
    assert all(f', "{what}"' in source for what in starts)
    path = str(tmp_path / "marks")
    record_event(path, "fit")
    record_event(path, "fit", at=0.0)
    marks = read_timeline(path)
    assert time.time() - 60 < marks["fit"] <= time.time(), "the first time counts"
    assert 0 < marks["CPU: fit"] < 3600
    assert process_start_time() < marks["fit"]


def test_time_functions_measures_and_restores_the_functions(tmp_path: Path) -> None:
    before = vars(TrainingPhase)["evaluate"], vars(worker)["train"], vars(worker)["write_outputs"]
    seconds_by_part: dict[str, float] = {}
    with time_functions(seconds_by_part, str(tmp_path / "marks")):
        assert before != (
            vars(TrainingPhase)["evaluate"],
            vars(worker)["train"],
            vars(worker)["write_outputs"],
        )
        with pytest.raises(TypeError):
            TrainingPhase.evaluate()  # type: ignore[call-arg]
    assert seconds_by_part["evaluation"] >= 0
    assert before == (vars(TrainingPhase)["evaluate"], vars(worker)["train"], vars(worker)["write_outputs"])
