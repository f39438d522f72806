"""Two phases: the whole network, then its classifier again, on balanced batches over a frozen backbone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from canopy.config import ModelConfig, OptimConfig, VariantConfig
from canopy.labels import LabelSet
from canopy.models.network import build_model, parameter_groups
from canopy.train.checkpoint.state_io import load_checkpoint, read_progress, save_checkpoint
from canopy.train.classifier_retraining import CLASS_BALANCED, retrain_classifier
from canopy.train.loop import TrainState, make_train_state, train
from canopy.train.phase_plan import Phase, training_phases
from canopy.train.training_records import TrainingPosition, ValidationScores

STEPS, ROWS = 3, 8
LABELS = LabelSet(("a", "b", "c"))
RATES_K = np.array([0.5, 0.25, 0.2])
Wrap = Callable[[nn.Module], nn.Module]


def variant(head: str = "mlp", ema: float = 0.0, patience: int | None = None) -> VariantConfig:
    optim = OptimConfig(epochs=2, rebalance_epochs=2, lr=1e-2, ema_decay=ema, patience=patience)
    model = ModelConfig.model_validate({"backbone": "test_resnet", "cbam": "last", "head": head})
    return VariantConfig(name="v", model=model, optim=optim)


def plain(network: nn.Module) -> nn.Module:
    return network


def in_ddp(network: nn.Module) -> nn.Module:
    return DistributedDataParallel(network)


def train_state_of(phase: VariantConfig, wrap: Wrap, after: TrainState | None) -> TrainState:
    torch.manual_seed(phase.seed)
    steps = phase.optim.epochs * STEPS
    if after is not None:
        return retrain_classifier(after, wrap, RATES_K, nn.BCEWithLogitsLoss(), phase.optim, steps)
    network = build_model(phase.model, 3, RATES_K)
    groups = parameter_groups(network, phase.optim.lr, 0.02)
    return make_train_state(wrap(network), nn.BCEWithLogitsLoss(), groups, phase.optim, steps)


def batches(phase: VariantConfig, first_step: int, share: slice) -> Iterator[tuple[Tensor, Tensor]]:
    for step in itertools.count(first_step):
        generator = torch.Generator().manual_seed(phase.seed + step)
        images = torch.randn(ROWS, 3, 32, 32, generator=generator)
        yield images[share], (images[share].mean((2, 3)) > 0).float()


class Killed(Exception):
    pass


def run(
    whole: VariantConfig,
    wrap: Wrap = plain,
    *,
    scores: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4),
    folder: Path | None = None,
    die_after: int | None = None,
    share: slice = slice(0, ROWS),
) -> tuple[TrainState, TrainingPosition]:
    """Run all phases as a worker does, from the checkpoint in ``folder`` if there is one."""
    saved = folder is not None and (folder / "progress.json").exists()
    progress = read_progress(folder) if saved and folder else TrainingPosition()
    train_state: TrainState | None = None
    for number, phase in enumerate((phase.variant for phase in training_phases(whole)), start=1):
        train_state = train_state_of(phase, wrap, train_state)
        if number < progress.phase:
            continue
        if saved and folder and number == progress.phase:
            load_checkpoint(folder, train_state, torch.device("cpu"))
        progress.start_phase(number)

        def save(progress: TrainingPosition, train_state: TrainState = train_state) -> None:
            if folder is not None:
                save_checkpoint(folder, train_state, progress, whole, LABELS)
            if progress.epoch == die_after:
                raise Killed

        train(
            train_state,
            batches(phase, progress.phase_epoch * STEPS, share),
            STEPS,
            phase.optim,
            progress,
            evaluate=lambda network: ValidationScores(*[scores[progress.epoch]] * 3),
            save_checkpoint=save,
            on_step_end=lambda *_: None,
            name="v",
            seed=phase.seed,
        )
    assert train_state is not None
    return train_state, progress


def head_of(train_state: TrainState) -> Any:
    return train_state.unwrapped.head


def test_without_rebalancing_there_is_one_phase() -> None:
    once = VariantConfig(name="v")
    assert training_phases(once) == [Phase("whole", once)]


def test_the_second_phase_is_a_derived_variant() -> None:
    first, second = (phase.variant for phase in training_phases(variant(patience=3)))
    assert first == variant(patience=3)
    assert (second.optim.epochs, second.optim.rebalance_epochs, second.optim.patience) == (2, 0, 3)
    assert second.sampling == CLASS_BALANCED
    assert second.seed != first.seed
    assert second.model == first.model


def test_only_the_head_learns_from_the_best_weights_on() -> None:
    whole = variant(ema=0.5)
    train_state, progress = run(whole, scores=(0.9, 0.2, 0.3, 0.4))
    assert [record.phase for record in progress.history] == [1, 1, 2, 2]
    assert [record.epoch for record in progress.history] == [1, 2, 3, 4]
    assert (progress.best_epoch, progress.best_score) == (1, 0.9)
    for name, tensor in train_state.eval_model.state_dict().items():
        frozen = not name.startswith("head.")
        # The best epoch was the first: the second phase began with its weights, and they are stored.
        assert torch.equal(tensor, train_state.best_weights[name]) == frozen, name


def test_a_second_phase_that_is_better_is_kept() -> None:
    train_state, progress = run(variant())
    assert (progress.best_epoch, progress.best_score) == (4, 0.4)
    for name, tensor in train_state.unwrapped.state_dict().items():
        assert torch.equal(tensor, train_state.best_weights[name]), name


def test_the_new_classifier_starts_at_the_rates_of_its_batches() -> None:
    whole = variant()
    first = train_state_of(training_phases(whole)[0].variant, plain, None)
    nn.init.constant_(head_of(first).final.weight, 5.0)
    hidden = head_of(first).hidden[1].weight.detach().clone()
    second = train_state_of(training_phases(whole)[1].variant, plain, first)
    head = head_of(second)
    assert head.final.weight.abs().max() < 0.1
    np.testing.assert_allclose(head.final.bias.detach().sigmoid().numpy(), RATES_K, rtol=1e-5)
    assert torch.equal(head.hidden[1].weight, hidden)
    assert second.unwrapped is not first.unwrapped
    assert second.lr_scheduler.last_epoch == 0  # its warm-up and cosine start again


def test_each_phase_has_its_own_patience() -> None:
    _, progress = run(variant(patience=1), scores=(0.5, 0.4, 0.3, 0.2))
    # one epoch without a better score ends the first phase after two, and the second after one
    assert [record.phase for record in progress.history] == [1, 1, 2]
    assert progress.best_epoch == 1


@pytest.mark.parametrize("die_after", [2, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4))])
def test_a_restart_in_either_phase_changes_nothing(tmp_path: Path, die_after: int) -> None:
    scores = (0.1, 0.4, 0.3, 0.5)
    whole, done = run(variant(ema=0.6), scores=scores)
    with pytest.raises(Killed):
        run(variant(ema=0.6), scores=scores, folder=tmp_path, die_after=die_after)
    again, progress = run(variant(ema=0.6), scores=scores, folder=tmp_path)
    losses = [[record.train_loss for record in p.history] for p in (done, progress)]
    assert losses[0] == losses[1]
    assert (progress.phase, progress.phase_start, progress.best_epoch) == (2, 2, 4)
    for a, b in (
        (whole.eval_model.state_dict(), again.eval_model.state_dict()),
        (whole.best_weights, again.best_weights),
    ):
        for name, tensor in a.items():
            torch.testing.assert_close(b[name], tensor, rtol=0, atol=0, msg=name)


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("head", ["mlp", "csra"])
def test_ddp_does_not_wait_for_what_is_frozen(head: str) -> None:
    """DDP refuses a second step when a parameter that it knows got no gradient in the first."""
    plain_state, _ = run(variant(head))
    train_state, progress = run(variant(head), in_ddp)
    assert isinstance(train_state.network, DistributedDataParallel)
    assert progress.epoch == 4
    for name, tensor in train_state.unwrapped.state_dict().items():
        torch.testing.assert_close(tensor, plain_state.unwrapped.state_dict()[name], msg=name)


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    train_state, _ = run(variant(), in_ddp, share=slice(rank * ROWS // 2, (rank + 1) * ROWS // 2))
    torch.save(train_state.unwrapped.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_end_with_the_same_weights(tmp_path: Path) -> None:
    spawn(one_of_two, args=(str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=0, msg=name)
