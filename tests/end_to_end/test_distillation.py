"""Whole runs: an ensemble of three folds teaches small networks, and a transformer is tuned by LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from tests.support import read_json, tiny_experiment, write_config

from canopy import metrics
from canopy.cli.main import main
from canopy.config import DistillConfig, Experiment, FinetuneConfig, ModelConfig, VariantConfig, derive
from canopy.predictions.io import read_predictions

pytestmark = pytest.mark.slow
SEEDS = (0, 1, 2)


def experiment(folder: Path) -> Experiment:
    """Chips with noisy labels, the same for every run of a test."""
    tiny = tiny_experiment(rows=2400, variants=2, epochs=5, trials=0)
    return derive(tiny, data=derive(tiny.data, root=str(folder / "chips")))


def stages(config: Experiment, folder: Path, *names: str) -> int:
    """Run commands on the run directory ``folder``/run; the exit status of the last."""
    folder.mkdir()
    arguments = ["--config", str(write_config(config, folder / "c.yaml")), "--run-dir", str(folder / "run")]
    *first, last = names
    for name in first:
        assert main([name, *arguments]) == 0
    return main([last, *arguments])


def map_on_test(run: Path, variant: str) -> float:
    """Mean average precision of a variant's network on the test split."""
    found = read_predictions(run / "train" / variant / "fold0" / "test.parquet")
    assert found.targets_NK is not None
    return metrics.mean_average_precision(found.targets_NK, found.probs_NK)


@pytest.mark.usefixtures("ray_here")
def test_small_networks_learn_from_an_ensemble(tmp_path: Path, record_property: Any) -> None:
    base = experiment(tmp_path)
    assert stages(derive(base, folds=3), tmp_path / "teacher", "pipeline") == 0
    small = derive(base.variants[0], swept=False)
    soft = DistillConfig(run=str(tmp_path / "teacher" / "run"), weight=0.7, temperature=1.0)
    students: list[VariantConfig] = []
    for seed in SEEDS:
        students.append(derive(small, name=f"hard{seed}", seed=seed))
        students.append(derive(small, name=f"soft{seed}", seed=seed, distill=soft))
    assert stages(derive(base, variants=tuple(students)), tmp_path / "students", "prepare", "train") == 0
    found = tmp_path / "students" / "run"
    hard, softened = (
        np.array([map_on_test(found, f"{kind}{seed}") for seed in SEEDS]) for kind in ("hard", "soft")
    )
    record_property("map_of_hard_labels", hard.tolist())
    record_property("map_of_soft_labels", softened.tolist())
    print(f"mAP by seed: hard {hard.round(4)}, soft {softened.round(4)}")
    assert (hard != softened).all(), "the soft labels did not reach the training"
    # Two networks of 5 epochs on two thirds of the chips are no better than one on all of them: nothing is
    # gained here. Labels of other chips would cost far more than this.
    assert softened.mean() > hard.mean() - 0.06

    other_split = derive(base, variants=(students[1],), data=derive(base.data, seed=base.data.seed + 1))
    assert stages(other_split, tmp_path / "other", "prepare") == 2


@pytest.mark.usefixtures("ray_here")
def test_lora_leaves_plain_weights_in_the_run(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    torch.manual_seed(7)
    network: Any = timm.create_model("test_vit", num_classes=0, img_size=32)
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    base = experiment(tmp_path)
    model = ModelConfig(backbone="test_vit", weights=str(tmp_path / "vit.safetensors"), input_size=32)
    plain = derive(base.variants[0], swept=False, model=model, finetune=FinetuneConfig(lora_rank=2))
    tuned = derive(plain, scale=derive(plain.scale, autotune=True))
    assert stages(derive(base, variants=(tuned,)), tmp_path / "lora", "prepare", "train") == 0
    state = load_file(tmp_path / "lora" / "run" / "train" / tuned.name / "fold0" / "weights.safetensors")
    positions = [
        read_json(path)["progress"] for path in (tmp_path / "lora/run/train/ray").rglob("progress.json")
    ]
    assert positions
    assert all(position["execution"]["threads"] == 1 for position in positions), "autotune's choice is kept"
    names = {name for name in state if name.startswith("backbone.")}
    assert names == {f"backbone.{name}" for name in network.state_dict()}
    moved = {
        n for n, tensor in network.state_dict().items() if not torch.equal(tensor, state[f"backbone.{n}"])
    }
    assert moved
    assert all(name.rpartition(".")[0].endswith(("qkv", "proj", "fc1", "fc2")) for name in moved), moved
