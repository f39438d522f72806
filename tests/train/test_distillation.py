"""Soft labels of another run: out of fold, of the same chips, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from tests.inference.conftest import finished_run
from tests.support import tiny_experiment

from canopy.config import DistillConfig, EnsembleConfig, OptimConfig, VariantConfig, derive
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.uri_list import UriList
from canopy.ensemble.model import Ensemble
from canopy.errors import ConfigError
from canopy.labels import LabelSet
from canopy.losses.distillation import DistillationLoss
from canopy.predictions.io import read_predictions
from canopy.stages.checks import check_variants
from canopy.storage.run_dir import RunDir
from canopy.train.distillation import soft_labels, tempered, with_absolute_teacher
from canopy.train.loop import train_step
from canopy.train.training_phase import DistributedContext, TrainingPhase


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A finished run of two folds and two members."""
    tiny = tiny_experiment(variants=2, trials=0)
    ensemble = EnsembleConfig(folds=4, bags=2, bootstrap=100, combination="mean", calibration="temperature")
    return finished_run(tmp_path_factory.mktemp("teacher"), derive(tiny, folds=2, ensemble=ensemble))


@pytest.fixture(scope="module")
def own(teacher: RunDir) -> Catalogue:
    """The same chips with one fold, in another order, and three validation chips more."""
    other = Catalogue.read(teacher.path("prepare", "catalogue.parquet"))
    order = np.random.default_rng(0).permutation(len(other))
    return Catalogue(
        ids=[*(other.ids[n] for n in order), "v0", "v1", "v2"],
        uris=[""] * (len(other) + 3),
        targets_NK=np.concatenate([other.targets_NK[order], other.targets_NK[:3]]),
        split=np.array(["train"] * len(other) + ["val"] * 3),
        fold=np.zeros(len(other) + 3, np.int8),
        group=np.array([""] * (len(other) + 3)),
        labels=other.labels,
    )


def student(teacher: RunDir, **distill: float) -> VariantConfig:
    return VariantConfig(name="small", distill=DistillConfig(run=teacher.root, **distill))


def test_soft_labels_are_the_out_of_fold_probabilities_of_the_ensemble(
    teacher: RunDir, own: Catalogue
) -> None:
    found = soft_labels(student(teacher), own)
    assert found is not None
    assert found.rows == len(own) - 3
    assert np.isnan(found.probs_NK[-3:]).all(), "validation chips have none"
    ensemble = Ensemble.load(teacher.path("ensemble", "ensemble.json"))
    assert found.members == ensemble.members
    for fold in (0, 1):  # each chip by the networks that did not see it
        stored = {
            name: read_predictions(teacher.path(f"train/{name}/fold{fold}", "heldout.parquet"))
            for name in ensemble.members
        }
        probs_nK = ensemble.probabilities({name: one.probs_NK for name, one in stored.items()})
        ids = next(iter(stored.values())).ids.tolist()
        rows = [own.ids.index(name) for name in ids]
        np.testing.assert_allclose(found.probs_NK[rows], probs_nK, atol=2e-6)


def test_temperature_divides_the_logits() -> None:
    probs = np.array([[0.5, 0.9, 0.0, 1.0]], np.float32)
    warm = tempered(probs, 2.0)
    assert warm[0, 0] == 0.5
    assert warm[0, 1] == pytest.approx(1 / (1 + (0.1 / 0.9) ** 0.5), rel=1e-5)
    assert 0 < warm[0, 2] < 1e-2
    assert np.isfinite(np.log(tempered(probs, 1.0))).all()


def test_no_run_gives_no_soft_labels(own: Catalogue) -> None:
    assert soft_labels(VariantConfig(name="v"), own) is None
    assert with_absolute_teacher(VariantConfig(name="v")) == VariantConfig(name="v")


def test_a_local_path_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    moved = with_absolute_teacher(VariantConfig(name="v", distill=DistillConfig(run="runs/a")))
    assert moved.distill.run == str(tmp_path / "runs/a")


def changed(catalogue: Catalogue, what: str) -> Catalogue:
    """A catalogue that differs in one thing from the other run's."""
    targets_NK, split = catalogue.targets_NK.copy(), catalogue.split.copy()
    match what:
        case "labels":
            return replace(catalogue, labels=LabelSet(("half", "common", "some", "rare")))
        case "targets":
            targets_NK[7] = 1 - targets_NK[7]
        case "validation":
            split[7] = "val"  # a chip that the other run trained on
        case "unknown":
            return replace(catalogue, ids=["new", *catalogue.ids[1:]])
    return replace(catalogue, targets_NK=targets_NK, split=split)


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("labels", "must have the labels half, common, some, rare, in this order"),
        ("targets", "must have the same labels for every chip"),
        ("validation", "must split the chips in the same way.* is in train and not in val"),
        ("unknown", "must split the chips in the same way.*new is in no split and not in train"),
    ],
)
def test_a_run_of_other_chips_labels_or_splits_is_refused(
    teacher: RunDir, own: Catalogue, what: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=f"variant small: distill.run {problem}"):
        soft_labels(student(teacher), changed(own, what))


def test_an_unfinished_run_or_one_without_folds_is_refused(
    teacher: RunDir, own: Catalogue, tmp_path: Path
) -> None:
    nothing = VariantConfig(name="small", distill=DistillConfig(run=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="must be the directory or URI of a finished run"):
        soft_labels(nothing, own)
    tiny = tiny_experiment(variants=1, trials=0)
    unfinished = derive(tiny, variants=(derive(tiny.variants[0], distill=nothing.distill),))
    check_variants(unfinished, "none")
    with pytest.raises(ConfigError, match=r"variant resnet: distill\.run must be the directory"):
        check_variants(unfinished, "cached")
    single = RunDir(str(tmp_path / "single"))
    single.store_config(tiny_experiment(variants=2, trials=0))
    for stage, name in (("prepare", "catalogue.parquet"), ("ensemble", "ensemble.json")):
        target = Path(single.path(stage, name))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(teacher.path(stage, name)).read_bytes())
    one_fold = VariantConfig(name="small", distill=DistillConfig(run=single.root))
    with pytest.raises(ConfigError, match="must have several folds, and so out-of-fold probabilities"):
        soft_labels(one_fold, own)


@pytest.mark.usefixtures("ray_here")
def test_a_phase_gives_each_chip_its_own_soft_labels(teacher: RunDir, own: Catalogue) -> None:
    rows = own.rows("train")[:24]
    pixels = np.random.default_rng(0).integers(0, 256, (len(own), 16, 16, 3), np.uint8)
    plain = derive(
        student(teacher, weight=0.6, temperature=2.0),
        model={"backbone": "test_resnet"},
        optim=OptimConfig(batch_size=8, epochs=1),
        augment="none",
    )
    found = soft_labels(plain, own)
    assert found is not None
    context = DistributedContext(0, 1, torch.device("cpu"))
    chips = ChipSource(16, UriList(()), ray.put(pixels))
    phase = TrainingPhase(plain, own, chips, context, rows, rows, soft_NK=found.probs_NK)
    state = phase.train_state(lambda network: network)
    assert isinstance(state.loss, DistillationLoss)
    assert (state.loss.weight, state.loss.temperature) == (0.6, 2.0)
    batches = list(phase.batches(0))
    assert len(batches) == 3
    got = {tuple(row) for _, targets in batches for row in targets.tolist()}
    wanted = np.concatenate([own.targets_NK[rows], found.probs_NK[rows]], 1).astype(np.float32)
    assert got == {tuple(row) for row in wanted.tolist()}
    for images, targets in batches:
        assert torch.isfinite(train_step(state, images, targets, plain.optim))
