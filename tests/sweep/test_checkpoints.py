"""The checkpoints of a trial, and its training without Ray Tune: resumption, objectives, both phases."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from canopy.config import EnsembleConfig, ModelConfig, OptimConfig, SweepConfig, VariantConfig, derive
from canopy.data.catalogue import Catalogue
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.uri_list import UriList
from canopy.errors import StageError
from canopy.labels import LabelSet
from canopy.storage.run_dir import RunDir
from canopy.sweep.objective import Objective
from canopy.sweep.records import TrialRecords
from canopy.sweep.schedulers import REPLAYED
from canopy.sweep.stored_logits import read_logits
from canopy.sweep.trials import TrialContext, TrialPlace, one_process, train_trial, trial_variant

pytestmark = pytest.mark.usefixtures("ray_here")
ROWS, SIZE = 96, 32
LABELS = LabelSet(("a", "b"))
VARIANT = VariantConfig(
    name="v",
    model=ModelConfig(backbone="test_resnet", dropout=0.2),
    optim=OptimConfig(epochs=3, batch_size=16, lr=4e-3, ema_decay=0.9),
)


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    targets_NK = (np.random.default_rng(1).random((ROWS, 2)) < 0.4).astype(np.uint8)
    split = np.array(["train"] * 64 + ["val"] * 32)
    fold = np.zeros(ROWS, np.int8)
    fold[80:] = 1
    ids = [f"n{n}" for n in range(ROWS)]
    return Catalogue(ids, [""] * ROWS, targets_NK, split, fold, np.array(ids), LABELS)


@pytest.fixture(scope="module")
def chips(catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> ChipSource:
    import ray

    chips_NHWC = np.random.default_rng(0).integers(0, 128, (ROWS, SIZE, SIZE, 3), dtype=np.uint8)
    chips_NHWC[..., 0] += 100 * catalogue.targets_NK[:, :1, None]
    return ChipSource(SIZE, UriList([""] * ROWS), ray.put(chips_NHWC))


def make_context(
    folder: Path, chips: ChipSource, variant: VariantConfig = VARIANT, **more: Any
) -> TrialContext:
    settings = SweepConfig(epochs=more.pop("epochs", 3))
    if not more.get("final"):
        variant = trial_variant(variant, settings)
    return TrialContext(variant, settings, chips, TrialRecords(RunDir(str(folder)), "0" * 64), **more)


def reports_of(context: TrialContext, catalogue: Catalogue, killed_after: int = 99) -> list[dict[str, Any]]:
    """What a trial reports until it is killed in the report of an epoch."""
    reports: list[dict[str, Any]] = []

    def report(result: dict[str, Any]) -> None:
        reports.append(result)
        if len(reports) >= killed_after and not result.get(REPLAYED):
            raise Killed

    with contextlib.suppress(Killed):
        place = TrialPlace(0, one_process(context.variant), lambda network: network, report)
        train_trial(context.variant, "a trial", place, context, catalogue)
    return reports


def scores(reports: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(one["score"], one["train_loss"]) for one in reports]


def test_a_killed_trial_goes_on_after_its_last_epoch_as_if_nothing_had_happened(
    catalogue: Catalogue, chips: ChipSource, tmp_path: Path
) -> None:
    whole = reports_of(make_context(tmp_path / "whole", chips), catalogue)
    assert [one["epoch"] for one in whole] == [1, 2, 3]
    context = make_context(tmp_path / "killed", chips)
    assert scores(reports_of(context, catalogue, killed_after=1)) == scores(whole)[:1]
    second = reports_of(context, catalogue, killed_after=2)
    assert [bool(one.get(REPLAYED)) for one in second] == [True, False]
    third = reports_of(context, catalogue)
    assert [bool(one.get(REPLAYED)) for one in third] == [True, True, False]
    assert scores(third) == scores(whole)
    Path(context.checkpoint(0).path).write_bytes(b"cut off")
    assert scores(reports_of(context, catalogue, killed_after=1)) == scores(whole)[:1], "starts again"


@pytest.mark.slow
def test_a_final_run_trains_both_phases_and_keeps_the_logits_of_its_best_epoch(
    catalogue: Catalogue, chips: ChipSource, tmp_path: Path
) -> None:
    variant = derive(VARIANT, optim=derive(VARIANT.optim, epochs=2, rebalance_epochs=1))
    whole = make_context(tmp_path / "whole", chips, variant, final=True)
    reports = reports_of(whole, catalogue)
    assert [one["phase"] for one in reports] == [1, 1, 2]
    logits_NK = read_logits(whole.logits_path(0))
    assert logits_NK.shape == (16, 2)
    objective = Objective("map", EnsembleConfig(), LABELS)
    targets_NK = catalogue.targets_NK[catalogue.rows("val", fold=0)]
    best = max(one["score"] for one in reports)
    assert objective.value(targets_NK, logits_NK) == pytest.approx(best)
    for kills in (2, 3):
        killed = make_context(tmp_path / f"killed{kills}", chips, variant, final=True)
        reports_of(killed, catalogue, killed_after=kills)
        reports_of(killed, catalogue)
        assert np.array_equal(read_logits(killed.logits_path(0)), logits_NK)


def test_epochs_are_scored_by_the_objective(catalogue: Catalogue, chips: ChipSource, tmp_path: Path) -> None:
    by_f1 = derive(VARIANT, optim=derive(VARIANT.optim, select_by="macro_f1"))
    former = reports_of(make_context(tmp_path / "a", chips, by_f1, epochs=1), catalogue)
    assert all(one["score"] == one["val_macro_f1"] for one in former)
    objective = Objective("map", EnsembleConfig(), LABELS)
    by_map = reports_of(make_context(tmp_path / "b", chips, by_f1, objective=objective, epochs=1), catalogue)
    assert all(one["score"] == one["val_map"] for one in by_map)
    objective = Objective("macro_f1", EnsembleConfig(), LABELS)
    held = reports_of(make_context(tmp_path / "c", chips, by_f1, objective=objective, epochs=1), catalogue)
    assert all(one["score"] <= one["val_macro_f1"] for one in held), "thresholds of other rows gain less"


def test_a_diverging_trial_says_so(catalogue: Catalogue, chips: ChipSource, tmp_path: Path) -> None:
    wild = derive(VARIANT, optim=derive(VARIANT.optim, lr=1e30, clip_norm=None))
    with pytest.raises(StageError, match=r"a trial: (the loss became|weights are not finite)"):
        reports_of(make_context(tmp_path, chips, wild), catalogue)
