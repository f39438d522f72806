"""The dry run: the table of what would be trained, without reading data or starting Ray."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import ray
from tests.support import REPOSITORY, tiny_experiment, write_config

from canopy.config import (
    BandConfig,
    Experiment,
    ModelConfig,
    SamplingConfig,
    SearchSpace,
    SweepConfig,
    derive,
)
from canopy.config.presets import PRESETS
from canopy.stages.dry_run import plan_of, row_of
from jobs import pipeline, train


@pytest.mark.parametrize("name", PRESETS)
def test_dry_run_starts_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    was_up = ray.is_initialized()
    assert pipeline.main(["--preset", name, "--dry-run"]) == 0
    output = capsys.readouterr().out
    for variant in PRESETS[name]().variants:
        (line,) = (line for line in output.splitlines() if line.split()[:1] == [variant.name])
        assert variant.model.backbone in line
    assert list(tmp_path.iterdir()) == []
    assert ray.is_initialized() == was_up


def test_dry_run_says_what_amazon_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--preset", "amazon", "--dry-run", "--variants.0.optim.rebalance-epochs", "3"]) == 0
    output = capsys.readouterr().out.splitlines()
    cells = {line.split()[0]: " ".join(line.split()) for line in output if line.strip()}
    # 40,479 chips less 15 % and 20 %, four of five folds, 128 at a time: 164 steps an epoch
    assert "4 CPU, 1 GPU 15 + 3 2,952 focal (γ, α from the sweep)" in cells["resnet50"]
    assert "224 pretrained 43.56 M 2" in cells["resnet101"]
    assert "efficientnet_b3, mlp" in cells["efficientnet-b3"]
    assert "4 variants × 5 folds = 20 trainings" in output
    assert any("sweep of resnet50: 16 trials of at most 4 epochs" in line for line in output)


def test_dry_run_counts_the_labels_of_the_near_infrared(tiny: Experiment) -> None:
    bands = tuple(BandConfig(name=name, band=n) for n, name in enumerate(("blue", "green", "red", "nir"), 1))
    data = derive(
        tiny.data, generate=derive(tiny.data.generate, near_infrared=True), bands=bands, dtype="uint8"
    )
    variant = derive(tiny.variants[0], model=ModelConfig(backbone="resnet50"))
    config = derive(tiny, data=data, variants=(variant,))
    # 25,557,032 parameters (He et al. 2016) with a classifier of 19 labels; of 17 it is 23.54 M
    assert "23.55 M" in row_of(config.variants[0], config, None)


def test_dry_run_of_a_table_of_unknown_length(tiny: Experiment) -> None:
    repeated = derive(tiny.variants[0], sampling=SamplingConfig(name="repeat_factor"))
    table = derive(tiny, data=derive(tiny.data, source="folders"), variants=(repeated,))
    assert "no data set" in plan_of(table)
    limited = derive(table, data=derive(table.data, limit=640))
    output = plan_of(limited)
    assert "data.limit, 640 chips" in output
    assert "≥ 20 " in output  # 320 training chips, 32 at a time, 2 epochs, and the repeats


def test_dry_run_of_a_sweep_over_other_fields(tiny: Experiment) -> None:
    space = SearchSpace(
        {"optim.lr": {"low": 0.001, "high": 0.01, "log": True}, "loss.name": ["bce", "focal"]}
    )
    output = plan_of(derive(tiny, sweep=SweepConfig(space=space, trials=20, epochs=3)))
    assert "before them a sweep of resnet: 20 trials of at most 3 epochs" in output
    assert "tpe over loss.name bce, focal; optim.lr 0.001 to 0.01 (log)" in output
    assert "then 9 trainings of 2 epochs: up to 2 finalists and the untouched variant, 3 seeds each" in output
    assert "focal, γ 2 (swept fields)" in " ".join(output.split())


BAD = [
    (["--variants.0.model.backbone", "resnt18"], "model.backbone must be a timm model. Got: resnt18"),
    (["--variants.0.augment.crop", "48"], "augment.crop must be at most data.image_size. Got: 48 and 32"),
    (["--variants.1.name", "resnet"], "distinct names. Got: 'resnet' twice"),
]


@pytest.mark.parametrize("job", [pipeline, train])
@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_dry_run_refuses_what_a_run_would(
    job: ModuleType, arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_config(tiny_experiment(), tmp_path / "c.yaml")
    assert job.main(["--config", str(file), "--dry-run", *arguments]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert message in output.err
    assert output.out == ""


def test_dry_run_prints_nodes_and_cost_for_a_cluster_and_refuses_what_is_too_dear(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_config(tiny_experiment(), tmp_path / "c.yaml")
    arguments = ["--config", str(file), "--dry-run", "--budget.cluster", str(REPOSITORY / "cluster.yaml")]
    assert pipeline.main([*arguments, "--max-cost", "50", "--max-node-hours", "50"]) == 0
    output = capsys.readouterr().out
    assert "train     efficientnet" in output
    assert "node-hours, " in output
    assert train.main(arguments) == 0
    assert "prepare   images" not in capsys.readouterr().out
    assert pipeline.main([*arguments, "--max-cost", "0.01"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --max-cost must be at least the estimate. Got: 0.01 and an estimate of ")
    assert pipeline.main([*arguments, "--max-cost", "-1"]) == 2
    assert "budget.max_cost" in capsys.readouterr().err
    assert pipeline.main([*arguments, "--budget.prices", "gone.yaml"]) == 2
    assert "error: budget.prices must name a file that exists. Got: gone.yaml." in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_dry_run_counts_the_members_of_a_sweep(tiny: Experiment) -> None:
    space = SearchSpace({"optim.lr": [0.01, 0.02, 0.03, 0.04]})
    output = plan_of(derive(tiny, sweep=SweepConfig(space=space, trials=4, members=3)))
    assert "5 variants × 1 fold = 5 trainings" in output
    assert (
        "the 3 trials that make the best ensemble together are trained as members: resnet-1 to resnet-3"
        in (output)
    )
