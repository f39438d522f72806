"""Batches and predictions of a training on a real Ray: equal for any number of ranks; unreadable images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from numpy.typing import NDArray
from PIL import Image
from tests.support import read_json

from canopy.config import AugmentConfig, OptimConfig, VariantConfig
from canopy.data.catalogue import Catalogue
from canopy.data.loading.batch_sampler import BatchSampler
from canopy.data.loading.batch_streams import scoring_batches, training_batches
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.unreadable import UnreadableImages, unreadable_summary
from canopy.data.loading.uri_list import UriList
from canopy.errors import DataError
from canopy.labels import LabelSet
from canopy.train.training_phase import DistributedContext, TrainingPhase

pytestmark = pytest.mark.usefixtures("ray_here")
ROWS, SIZE = 60, 16
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def chips_NHWC() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (ROWS, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def uris(chips_NHWC: NDArray[np.uint8], tmp_path: Path) -> tuple[str, ...]:
    """A folder of images to damage."""
    for n, chip in enumerate(chips_NHWC):
        Image.fromarray(chip).save(tmp_path / f"{n}.png")
    return tuple(str(tmp_path / f"{n}.png") for n in range(ROWS))


def damage(uris: tuple[str, ...], rows: list[int]) -> None:
    """Truncate the files, and remove the last one."""
    for row in rows[:-1]:
        file = Path(uris[row])
        file.write_bytes(file.read_bytes()[:100])
    Path(uris[rows[-1]]).unlink()


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    targets_NK = (np.random.default_rng(1).random((ROWS, 3)) < 0.4).astype(np.uint8)
    targets_NK[:, 0] = np.arange(ROWS) % 2
    return Catalogue(
        ids=[f"n{n}" for n in range(ROWS)],
        uris=[""] * ROWS,
        targets_NK=targets_NK,
        split=np.array(["train"] * ROWS),
        fold=np.zeros(ROWS, np.int8),
        group=np.array([""] * ROWS),
        labels=LabelSet(("a", "b", "c")),
    )


def make_phase(
    chips: ChipSource, catalogue: Catalogue, augment: AugmentConfig, rank: int, world_size: int
) -> TrainingPhase:
    optim = OptimConfig(batch_size=12, epochs=1)
    variant = VariantConfig(name="v", augment=augment, optim=optim, seed=3)
    rows = np.arange(ROWS)
    return TrainingPhase(variant, catalogue, chips, DistributedContext(rank, world_size, CPU), rows, rows)


@pytest.mark.parametrize("place", ["data", "device"])
def test_any_number_of_workers_trains_on_the_same_images_and_targets(
    chips_NHWC: NDArray[np.uint8], catalogue: Catalogue, place: Any
) -> None:
    """With Mixup, CutMix and the rest; shares of 12, 6, 4 and 3, of which the last cuts pairs in two."""
    augment = AugmentConfig(mixup_alpha=0.4, cutmix_alpha=1.0, brightness=0.2, hue=0.1, place=place)
    chips = ChipSource(SIZE, UriList(()), ray.put(chips_NHWC))
    seen: dict[int, list[Counter[bytes]]] = {}
    for world_size in (1, 2, 4) if place == "data" else (1, 4):
        ranks = [
            list(make_phase(chips, catalogue, augment, r, world_size).batches(0)) for r in range(world_size)
        ]
        assert {len(batches) for batches in ranks} == {5}
        assert {len(images) for batches in ranks for images, _ in batches} == {12 // world_size}
        seen[world_size] = [
            Counter(
                image.contiguous().numpy().tobytes() + target.numpy().tobytes()
                for images, targets_nK in step
                for image, target in zip(images, targets_nK, strict=True)
            )
            for step in zip(*ranks, strict=True)
        ]
    assert all(steps == seen[1] for steps in seen.values())
    assert all(len(step) == 12 for step in seen[1]), "each image is mixed differently"


BAD = [4, 17, 33]


def test_an_unreadable_image_is_replaced_in_training_and_named(
    uris: tuple[str, ...], chips_NHWC: NDArray[np.uint8], catalogue: Catalogue
) -> None:
    damage(uris, BAD)
    chips = ChipSource(SIZE, UriList(uris), None, max_bad_fraction=3 / ROWS)
    plan, plain = BatchSampler(np.arange(ROWS), 12, 3), AugmentConfig(flips=False)
    for world_size in (1, 3):
        unreadable, rows = UnreadableImages(ROWS, 3 / ROWS), []
        for rank in range(world_size):
            stream = training_batches(
                chips, plan, plain, rank=rank, world_size=world_size, first_step=0, stop_step=10
            )
            batches = [{k: v.copy() for k, v in batch.items()} for batch in stream]
            assert [len(batch["row"]) for batch in batches] == [12 // world_size] * 10, (
                "equal steps and shapes"
            )
            for batch in batches:
                unreadable.record(batch)
                np.testing.assert_array_equal(batch["image"], chips_NHWC[batch["row"]])
            rows.append(np.stack([batch["row"] for batch in batches]))
        expected = np.stack(plan.batches(0, 10))
        for step_rows in expected:
            for place in np.flatnonzero(np.isin(step_rows, BAD)):
                later = [row for row in np.roll(step_rows, -place - 1) if row not in BAD]
                step_rows[place] = later[0]
        np.testing.assert_array_equal(np.concatenate(rows, axis=1), expected)
        assert sorted(unreadable.reasons) == BAD, "counted once, though met in two epochs"
    for _, targets_nK in make_phase(chips, catalogue, plain, 0, 1).batches(0):
        assert len(targets_nK) == 12


def test_labels_are_those_of_the_replacing_image(
    uris: tuple[str, ...], chips_NHWC: NDArray[np.uint8], catalogue: Catalogue
) -> None:
    damage(uris, BAD)
    chips = ChipSource(SIZE, UriList(uris), None, max_bad_fraction=0.1)
    from canopy.data.transforms.normalize import normalize

    known = {
        image.contiguous().numpy().tobytes(): target.tobytes()
        for image, target in zip(
            normalize(torch.from_numpy(chips_NHWC)), catalogue.targets_NK.astype(np.float32), strict=True
        )
    }
    for images, targets_nK in make_phase(chips, catalogue, AugmentConfig(flips=False), 0, 1).batches(0):
        for image, target in zip(images, targets_nK, strict=True):
            assert known[image.contiguous().numpy().tobytes()] == target.numpy().tobytes()


def test_too_many_unreadable_images_end_the_training_and_are_named(
    uris: tuple[str, ...], catalogue: Catalogue
) -> None:
    damage(uris, BAD)
    chips = ChipSource(SIZE, UriList(uris), None, max_bad_fraction=2 / ROWS)
    message = (
        rf"must still be readable.*3 of {ROWS} unreadable, first .*4\.png: damaged.*33\.png: there is no"
    )
    with pytest.raises(DataError, match=message):
        for _ in make_phase(chips, catalogue, AugmentConfig(), 0, 1).batches(0):
            pass


def test_every_id_has_logits_even_if_its_image_is_unreadable(
    uris: tuple[str, ...], catalogue: Catalogue, tmp_path: Path
) -> None:
    """Its row has the rates of the training labels: no predictions file lacks an id or holds a NaN."""
    damage(uris, BAD)
    chips = ChipSource(SIZE, UriList(uris), None, max_bad_fraction=0.1)
    phase = make_phase(chips, catalogue, AugmentConfig(), 0, 1)

    class Mean(torch.nn.Module):
        def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
            return x_NCHW.mean(dim=(2, 3))

    rows = np.arange(50, -1, -1)
    for _ in range(2):  # the second time from the cache
        logits_NK = phase.logits(Mean(), rows, cache=True)
        assert logits_NK.shape == (51, 3)
        assert np.isfinite(logits_NK).all()
        rates_K = catalogue.targets_NK.mean(0)
        gone = np.isin(rows, BAD)
        np.testing.assert_allclose(1 / (1 + np.exp(-logits_NK[gone])), np.tile(rates_K, (3, 1)), rtol=1e-5)
        assert not (logits_NK[~gone] == logits_NK[gone][0]).all(1).any()
    phase.unreadable.write(str(tmp_path / "bad_images.json"), catalogue.ids)
    named = read_json(tmp_path / "bad_images.json")
    assert list(named) == ["n4", "n17", "n33"]
    assert "17.png: damaged or truncated" in named["n17"]
    line = unreadable_summary(str(tmp_path / "bad_images.json"))
    assert line is not None
    assert line.startswith("3 images could no longer be read")
    UnreadableImages(ROWS, 0.1).write(str(tmp_path / "none.json"), catalogue.ids)
    assert unreadable_summary(str(tmp_path / "none.json")) is None


def test_an_image_that_becomes_readable_is_predicted_again(uris: tuple[str, ...]) -> None:
    chips, unreadable = ChipSource(SIZE, UriList(uris), None), UnreadableImages(ROWS, 0.1)
    whole = Path(uris[5]).read_bytes()
    logits_nK, rows = np.zeros((4, 3), np.float32), np.arange(3, 7)
    for content, changed in ((b"", [2]), (whole, [])):
        Path(uris[5]).write_bytes(content)
        logits_nK[:] = 9
        for batch in scoring_batches(chips, rows, 4):
            unreadable.record(batch, scoring=True)
        unreadable.fill_logits(rows, logits_nK, np.full(3, 0.5))
        assert np.flatnonzero((logits_nK == 0).all(1)).tolist() == changed
    assert sorted(unreadable.reasons) == [5], "it stays named"


def test_a_batch_without_any_readable_image_is_an_error(uris: tuple[str, ...]) -> None:
    damage(uris, list(range(ROWS)))
    chips = ChipSource(SIZE, UriList(uris), None, max_bad_fraction=1.0)
    plan = BatchSampler(np.arange(ROWS), 12, 3)
    with pytest.raises(Exception, match="A training batch must hold a readable image"):
        list(training_batches(chips, plan, AugmentConfig(), rank=0, world_size=1, first_step=0, stop_step=1))
