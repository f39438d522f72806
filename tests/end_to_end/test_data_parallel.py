"""Training by any number of ranks is the same training: real processes, real gloo."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from canopy.config import (
    AugmentConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
    VariantConfig,
)
from canopy.data.catalogue import Catalogue
from canopy.data.loading import batch_streams
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.ray_stream import BLOCK_BYTES, Batch
from canopy.data.loading.uri_list import UriList
from canopy.labels import LabelSet
from canopy.train.loop import train
from canopy.train.training_phase import DistributedContext, TrainingPhase
from canopy.train.training_records import TrainingPosition

SIZE, TRAIN, VAL = 32, 101, 23
"""Neither count is a multiple of the ranks."""


VARIANT = VariantConfig(
    name="v",
    model=ModelConfig(backbone="test_efficientnet_gn"),  # group norm; it has no dropout
    loss=LossConfig(name="focal", alpha=0.5),
    augment=AugmentConfig(flips=False),
    optim=OptimConfig(epochs=3, batch_size=24, lr=2e-3),
    seed=3,
)


class InThisProcess(Iterator[Batch]):
    """Replaces Ray's executor: runs the same tasks one after the other in this process."""

    def __init__(
        self, rows: int, block_rows: int, task: Callable[[Batch], Batch], *_: Any, **__: Any
    ) -> None:
        self._blocks = (
            task({"id": np.arange(start, min(rows, start + block_rows))})
            for start in range(0, rows, block_rows)
        )

    def __next__(self) -> Batch:
        return next(self._blocks)


def phase_of(folder: Path, dist_context: DistributedContext) -> TrainingPhase:
    """Colored chips whose labels depend on their colors."""
    rng = np.random.default_rng(0)
    colors_NC = rng.integers(0, 256, (TRAIN + VAL, 3))
    uris = [str(folder / f"{n}.png") for n in range(len(colors_NC))]
    split = np.array(["train"] * TRAIN + ["val"] * VAL)
    targets_NK = (colors_NC > [100, 128, 200]).astype(np.uint8)
    fold = np.zeros(len(uris), np.int8)
    labels = LabelSet(("red", "green", "blue"))
    catalogue = Catalogue(uris, uris, targets_NK, split, fold, np.array(uris), labels)
    chips = ChipSource(SIZE, UriList(uris), None)
    return TrainingPhase(
        VARIANT, catalogue, chips, dist_context, catalogue.rows("train"), catalogue.rows("val")
    )


def one_rank(rank: int, world_size: int, folder: str, learns: bool) -> None:
    torch.set_num_threads(1)
    vars(batch_streams).update(
        BlockStream=InThisProcess, default_cores=lambda world_size: 1, block_bytes=lambda: BLOCK_BYTES
    )
    store = f"file://{folder}/store-{world_size}-{learns}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    phase = phase_of(Path(folder), DistributedContext(rank, world_size, torch.device("cpu")))
    train_state = phase.train_state(
        lambda network: DistributedDataParallel(network) if world_size > 1 else network
    )
    progress = TrainingPosition()
    if learns:
        train(
            train_state,
            phase.batches(0),
            phase.batch_sampler.steps_per_epoch,
            VARIANT.optim,
            progress,
            evaluate=phase.evaluate,
            save_checkpoint=lambda progress: None,
            on_step_end=lambda epoch, step, images: None,
            name="v",
            seed=rank,
        )
    logits_NK = phase.logits(train_state.eval_model, phase.selection_rows)
    weights = [float(p.detach().double().norm()) for p in train_state.unwrapped.parameters()]
    found = {
        "history": [record.to_json() for record in progress.history],
        "logits": logits_NK.tolist(),
        "weights": weights,
    }
    Path(folder, f"{world_size}-{rank}-{learns}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def run(folder: Path, world_size: int, learns: bool) -> list[dict[str, Any]]:
    """Results of each rank."""
    arguments = (world_size, str(folder), learns)
    start_processes(one_rank, arguments, nprocs=world_size, start_method="forkserver")  # type: ignore[no-untyped-call]
    return [
        json.loads((folder / f"{world_size}-{rank}-{learns}.json").read_text()) for rank in range(world_size)
    ]


@pytest.fixture(scope="module")
def chips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of chips; processes are forked from one that has imported everything."""
    import multiprocessing

    multiprocessing.set_forkserver_preload(["canopy.train.fleet.worker"])
    folder = tmp_path_factory.mktemp("chips")
    colors_NC = np.random.default_rng(0).integers(0, 256, (TRAIN + VAL, 3))
    noise = np.random.default_rng(1).integers(-40, 40, (TRAIN + VAL, SIZE, SIZE, 3))
    for n, color in enumerate(colors_NC):
        pixels = np.clip(color + noise[n], 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    return folder


def test_one_worker_and_two_give_the_same_loss_curve(chips: Path) -> None:
    (alone,), (first, second) = run(chips, 1, learns=True), run(chips, 2, learns=True)
    curve = [record["train_loss"] for record in alone["history"]]
    assert len(curve) == VARIANT.optim.epochs
    assert curve[-1] < 0.95 * curve[0], "a flat curve would prove nothing"
    np.testing.assert_allclose([r["train_loss"] for r in first["history"]], curve, rtol=1e-4)
    np.testing.assert_allclose(first["logits"], alone["logits"], rtol=0, atol=2e-3)
    np.testing.assert_allclose(first["weights"], alone["weights"], rtol=1e-3)
    # The ranks have the same network and the same records, to the bit.
    assert first["weights"] == second["weights"]
    assert [r["train_loss"] for r in first["history"]] == [r["train_loss"] for r in second["history"]]
    assert [r["score"] for r in first["history"]] == [r["score"] for r in second["history"]]


def test_evaluation_covers_every_row_once_for_one_two_and_three_ranks(chips: Path) -> None:
    """``gather_logits`` refuses lost and repeated rows; here each row's logits are in place too."""
    (alone,) = run(chips, 1, learns=False)
    assert len(alone["logits"]) == VAL
    for world_size in (2, 3):
        for found in run(chips, world_size, learns=False):
            np.testing.assert_allclose(found["logits"], alone["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_ranks_take_equal_slices_of_one_global_batch(chips: Path, world_size: int) -> None:
    seen: list[NDArray[np.int64]] = []
    for rank in range(world_size):
        phase = phase_of(chips, DistributedContext(rank, world_size, torch.device("cpu")))
        part = batch_streams.rank_batch_slice(VARIANT.augment, phase.batch_sampler, rank, world_size)
        task = batch_streams._TrainTask(phase.chips, phase.batch_sampler, VARIANT.augment, part, 0)
        seen.append(task({"id": np.array([2])})["row"])
    assert len({len(rows) for rows in seen}) == 1
    np.testing.assert_array_equal(np.concatenate(seen), phase.batch_sampler.batches(2, 3)[0])


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"optim.batch_size must be a multiple of scale.workers"):
        VariantConfig(name="v", optim=OptimConfig(batch_size=10), scale=ResourcesConfig(workers=3))


def test_synchronized_batch_norm_is_refused_without_gpus() -> None:
    optim = OptimConfig(sync_batchnorm=True)
    with pytest.raises(ValidationError, match=r"sync_batchnorm needs GPUs when scale.workers is above 1"):
        VariantConfig(name="v", optim=optim, scale=ResourcesConfig(workers=2))
    VariantConfig(name="v", optim=optim, scale=ResourcesConfig(workers=2, gpus_per_worker=1))
    VariantConfig(name="v", optim=optim)
