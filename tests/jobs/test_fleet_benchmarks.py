"""The fleet's benchmarks at a size for tests; whole trainings are left to the benchmarks themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jobs.benchmarks.fleet import gpu, timestamps, whole_training
from jobs.benchmarks.fleet.__main__ import main
from jobs.benchmarks.fleet.gpu import Bench
from jobs.benchmarks.fleet.timestamps import mark, process_created, read_marks, stopwatches
from jobs.benchmarks.fleet.workload import OurLoop, PlainLoop, Workload, workload
from jobs.benchmarks.measurement import Report

from canopy.config import AugmentConfig, ModelConfig, OptimConfig, ScaleConfig
from canopy.train.fleet import worker
from canopy.train.task import TrainTask


@pytest.fixture
def work() -> Iterator[Workload]:
    model, optim = ModelConfig(backbone="test_resnet"), OptimConfig(epochs=2, batch_size=8)
    with workload("test", model, optim, ScaleConfig(), rows=20, size=32) as found:
        yield found
    assert not Path(found.run.root).exists()


@pytest.mark.usefixtures("ray_here")
def test_both_loops_learn_the_same(work: Workload) -> None:
    ours, plain = OurLoop(work), PlainLoop(work)
    assert ours() == plain() == work.images == 32
    assert ours.last_loss == pytest.approx(plain.last_loss, rel=1e-3)
    assert ours.last_loss < 1


@pytest.mark.usefixtures("ray_here")
def test_the_gpu_benchmark_measures_on_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    optim = OptimConfig(epochs=1000, batch_size=8, precision="bfloat16")
    flips, model = AugmentConfig(place="device"), ModelConfig(backbone="test_resnet")
    report = Report("gpu", None)
    with workload("test-gpu", model, optim, ScaleConfig(), rows=20, size=32, augment=flips) as work:
        gpu.measure(Bench.of(work, "cpu", by_compiler=False), repeats=2, steps=3, report=report)
    report.show()
    out = capsys.readouterr().out
    assert "eager: images/s, stream / resident" in out
    assert "eager: share of time waiting for batches" in out


def test_what_cannot_be_measured_here_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert main(["gpu"]) == 2
    assert main(["ddp", "--gpus", "2"]) == 2
    assert main(["loop", "--rows", "8", "--batch-size", "64"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert [line.partition(" must be")[0].partition(" needs")[0] for line in error] == [
        "error: The gpu benchmark",
        "error: --gpus",
        "error: --rows",
    ]


def test_the_parts_of_a_training_follow_from_mark_to_mark(tmp_path: Path) -> None:
    """The parts add up to the whole: each begins where the one before it ends."""
    starts, ends = (
        [since for _, since, _ in whole_training.STEPS],
        [until for _, _, until in whole_training.STEPS],
    )
    assert starts[1:] == ends[:-1]
    assert (starts[0], ends[-1]) == ("fit", "fit returned")
    told = Path(timestamps.__file__).read_text() + Path(whole_training.__file__).read_text()
    assert all(f', "{what}"' in told for what in starts)
    path = str(tmp_path / "marks")
    mark(path, "fit")
    mark(path, "fit", at=0.0)
    marks = read_marks(path)
    assert time.time() - 60 < marks["fit"] <= time.time(), "the first counts"
    assert 0 < marks["CPU: fit"] < 3600
    assert process_created() < marks["fit"]


def test_stopwatches_measure_and_leave_everything_as_it_was(tmp_path: Path) -> None:
    before = vars(TrainTask)["evaluate"], vars(worker)["train"], vars(worker)["write_outputs"]
    spent: dict[str, float] = {}
    with stopwatches(spent, str(tmp_path / "marks")):
        assert before != (vars(TrainTask)["evaluate"], vars(worker)["train"], vars(worker)["write_outputs"])
        with pytest.raises(TypeError):
            TrainTask.evaluate()  # type: ignore[call-arg]
    assert spent["evaluation"] >= 0
    assert before == (vars(TrainTask)["evaluate"], vars(worker)["train"], vars(worker)["write_outputs"])
