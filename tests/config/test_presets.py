"""The named experiments: the plan for the cloud, one step of each of its networks, and --dry-run."""

from __future__ import annotations

import socket
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import ray
import torch
from tests.support import tiny_experiment, write_config
from torch import nn

from canopy.config import Experiment, LossConfig, SamplingConfig, VariantConfig, derive
from canopy.config.describe import describe_loss
from canopy.config.presets import ENHANCED, PRESETS, amazon
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.uri_list import UriList
from canopy.data.synthetic.label_model import LABELS
from canopy.data.transforms.augment import apply_augmentation, draw_params, normalize
from canopy.errors import ConfigError
from canopy.models.classifier import Classifier, build_model
from canopy.stages.dry_run import plan_of
from canopy.train.loop import TrainState, train_step
from canopy.train.task import DistributedContext, TrainTask
from jobs import pipeline, train

VARIANTS = {variant.name: variant for variant in amazon().variants}
OPTIM = amazon().variants[0].optim
SMALL = 64
"""Pixels a side: a twelfth of the work of the preset's 224."""


def test_amazon_is_the_plan() -> None:
    config = amazon()
    models = [(v.model.backbone, v.model.cbam) for v in config.variants]
    assert models == [
        ("resnet50", "none"),
        ("resnet101", "none"),
        ("efficientnet_b3", "none"),
        ("resnet50", "last"),
    ]
    assert config.folds == 5
    assert config.data.source == "kaggle"
    assert config.data.image_size == 256
    assert config.sweep.trials > 0
    for variant in config.variants:
        assert variant.swept_loss
        assert variant.loss.name == "focal"
        assert (variant.model.pretrained, variant.model.head, variant.model.dropout) == (True, "mlp", 0.5)
        augment = variant.augment
        assert (augment.crop, augment.flips, augment.rotate_degrees) == (224, True, 90)
        assert (augment.brightness, augment.contrast, augment.saturation, augment.hue) == (
            0.3,
            0.3,
            0.3,
            0.15,
        )
        assert (augment.grayscale, augment.blur) == (0.1, 0.2)
        assert variant.optim.precision == "bfloat16"
        assert variant.scale.gpus_per_worker == 1
    assert Experiment.model_validate(config.model_dump(mode="json")) == config


def catalogue() -> Catalogue:
    rng = np.random.default_rng(0)
    targets_NK = (rng.random((64, len(LABELS))) < 0.3).astype(np.uint8)
    names = [f"c{n}" for n in range(64)]
    split, fold = np.repeat(["train", "val"], 32), np.zeros(64, np.int8)
    return Catalogue(names, names, targets_NK, split, fold, np.array(names), LABELS)


def train_state_of(variant: VariantConfig) -> TrainState:
    data = catalogue()
    dist_context = DistributedContext(0, 1, torch.device("cpu"))
    task = TrainTask(
        variant, data, ChipSource(256, UriList(()), None), dist_context, data.rows("train"), data.rows("val")
    )
    return task.train_state(lambda network: network)


def final_of(train_state: TrainState) -> nn.Linear:
    network = train_state.unwrapped
    assert isinstance(network, Classifier)
    return network.head.final


@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_of_each_of_amazons_variants(name: str) -> None:
    """Everything as in the cloud but for weights, batch, pixels, device, and float32.

    A processor without bfloat16 takes a minute to imitate it.
    """
    model, optim = derive(VARIANTS[name].model, pretrained=False), derive(OPTIM, precision="float32")
    variant = derive(VARIANTS[name], model=model, optim=optim, augment=derive(ENHANCED, crop=SMALL))
    train_state = train_state_of(variant)
    rng = np.random.default_rng(1)
    images_NHWC = torch.from_numpy(rng.integers(0, 256, (2, SMALL + 16, SMALL + 16, 3), dtype=np.uint8))
    cut_NHWC = apply_augmentation(images_NHWC, draw_params(variant.augment, 2, rng))
    assert cut_NHWC.shape == (2, SMALL, SMALL, 3)
    targets_NK = torch.from_numpy((rng.random((2, len(LABELS))) < 0.3).astype(np.float32))
    before = final_of(train_state).weight.detach().clone()
    loss = train_step(train_state, normalize(cut_NHWC), targets_NK, variant.optim)
    assert torch.isfinite(loss)
    assert not torch.equal(final_of(train_state).weight, before)
    lacking = [n for n, p in train_state.unwrapped.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []


def test_amazon_without_a_hub_names_both_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with socket.socket() as closed:  # a port on which nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        for variant in VARIANTS.values():
            with pytest.raises(ConfigError) as caught:
                build_model(variant.model, 17)
            text = str(caught.value)
            assert variant.model.backbone in text
            assert "model.weights to the path or URI" in text
            assert "model.pretrained to false" in text


def test_a_sampled_variant_starts_at_the_rates_that_it_sees() -> None:
    weighted = SamplingConfig(name="weighted", power=1)
    model = derive(VARIANTS["resnet50"].model, pretrained=False, backbone="test_resnet")
    variant = VariantConfig(name="a", model=model)
    data = catalogue()
    rare = int(data.targets_NK[:32].sum(axis=0).argmin())
    rates = [
        final_of(train_state_of(v)).bias.sigmoid()[rare].item()
        for v in (variant, derive(variant, sampling=weighted))
    ]
    assert rates[0] == pytest.approx(data.targets_NK[:32, rare].mean(), rel=1e-4)
    assert rates[1] > 1.2 * rates[0]


# --dry-run


@pytest.mark.parametrize("name", PRESETS)
def test_dry_run_starts_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    was_up = ray.is_initialized()
    assert pipeline.main(["--preset", name, "--dry-run"]) == 0
    told = capsys.readouterr().out
    for variant in PRESETS[name]().variants:
        (line,) = (line for line in told.splitlines() if line.split()[:1] == [variant.name])
        assert variant.model.backbone in line
    assert list(tmp_path.iterdir()) == []
    assert ray.is_initialized() == was_up


def test_dry_run_says_what_amazon_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--preset", "amazon", "--dry-run", "--variants.0.optim.rebalance-epochs", "3"]) == 0
    told = capsys.readouterr().out.splitlines()
    cells = {line.split()[0]: " ".join(line.split()) for line in told if line.strip()}
    # 40,479 chips less 15 % and 20 %, four of five folds, 128 at a time: 164 steps an epoch
    assert "4 CPU, 1 GPU 15 + 3 2,952 focal (γ, α from the sweep)" in cells["resnet50"]
    assert "224 pretrained 43.56 M 2" in cells["resnet101"]
    assert "efficientnet_b3, mlp" in cells["efficientnet-b3"]
    assert "4 variants × 5 folds = 20 trainings" in told
    assert any("sweep of resnet50: 16 trials of at most 4 epochs" in line for line in told)


def test_dry_run_of_a_table_of_unknown_length(tiny: Experiment) -> None:
    repeated = derive(tiny.variants[0], sampling=SamplingConfig(name="repeat_factor"))
    table = derive(tiny, data=derive(tiny.data, source="folders"), variants=(repeated,))
    assert "no data set" in plan_of(table)
    limited = derive(table, data=derive(table.data, limit=640))
    told = plan_of(limited)
    assert "data.limit, 640 chips" in told
    assert "≥ 20 " in told  # 320 training chips, 32 at a time, 2 epochs, and the repeats


BAD = [
    (["--variants.0.model.backbone", "resnt18"], "model.backbone must be a timm model. Got: resnt18"),
    (["--variants.0.augment.crop", "48"], "augment.crop must be at most data.image_size. Got: 48 and 32"),
    (["--variants.1.name", "resnet"], "distinct names. Got: 'resnet' twice"),
]


@pytest.mark.parametrize("job", [pipeline, train])
@pytest.mark.parametrize(("arguments", "told"), BAD)
def test_dry_run_refuses_what_a_run_would(
    job: ModuleType, arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_config(tiny_experiment(), tmp_path / "c.yaml")
    assert job.main(["--config", str(file), "--dry-run", *arguments]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert told in output.err
    assert output.out == ""


def test_a_loss_is_told_by_what_it_reads() -> None:
    assert describe_loss(LossConfig(name="weighted_bce").model_dump()) == "weighted bce, weights sqrt"
    own = LossConfig(name="weighted_bce", class_weights=(1, 2))
    assert describe_loss(own.model_dump()) == "weighted bce, weights per label"
    assert describe_loss(LossConfig(name="bce").model_dump()) == "bce"
