from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from canopy.config import OptimConfig, VariantConfig
from canopy.errors import StageError
from canopy.labels import LabelSet
from canopy.train.checkpoint.state_io import load_checkpoint, save_checkpoint
from canopy.train.loop import TrainState, ema_update, make_train_state, train, train_step
from canopy.train.training_records import TrainingPosition, ValidationScores

STEPS = 8
LABELS = LabelSet(("a", "b", "c"))


def new_train_state(config: OptimConfig) -> TrainState:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    network(torch.zeros(1, 3, 6, 6))
    groups = [{"params": list(network.parameters()), "lr": config.lr, "weight_decay": 0.0}]
    return make_train_state(network, nn.BCEWithLogitsLoss(), groups, config, config.epochs * STEPS)


class Scaled(nn.BCEWithLogitsLoss):
    """A loss times the next of ``factors``."""

    def __init__(self, factors: Iterator[float]) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return next(self.factors) * super().forward(input, target)


def batches(first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    for step in itertools.count(first_step):
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(16, 3, 6, 6, generator=generator)
        yield images, (images.mean((2, 3)) > 0).float()


def run(
    train_state: TrainState,
    config: OptimConfig,
    progress: TrainingPosition,
    source: Iterator[tuple[Tensor, Tensor]] | None = None,
    scores: Iterator[float] | None = None,
    save: Callable[[TrainingPosition], None] = lambda progress: None,
    on_evaluate: Callable[[nn.Module], None] = lambda network: None,
) -> None:
    scores = scores or itertools.count()
    assert scores is not None

    def evaluate(network: nn.Module) -> ValidationScores:
        on_evaluate(network)
        score = float(next(scores))
        return ValidationScores(score, score, 0.5)

    train(
        train_state,
        source or batches(progress.epoch * STEPS),
        STEPS,
        config,
        progress,
        evaluate=evaluate,
        save_checkpoint=save,
        on_step_end=lambda epoch, step, images: None,
        name="v",
        seed=1,
    )


def test_it_learns_and_records_each_epoch() -> None:
    config, progress = OptimConfig(epochs=6, lr=2e-2), TrainingPosition()
    run(new_train_state(config), config, progress)
    losses = [record.train_loss for record in progress.history]
    assert losses[-1] < 0.7 * losses[0]
    assert [record.epoch for record in progress.history] == [1, 2, 3, 4, 5, 6]
    assert {record.phase for record in progress.history} == {1}
    assert progress.history[-1].lr < 0.1 * config.lr


def test_the_weights_of_the_best_epoch_are_copied_and_patience_ends() -> None:
    config, progress = OptimConfig(epochs=10, patience=2), TrainingPosition()
    train_state = new_train_state(config)
    run(train_state, config, progress, scores=iter([0.1, 0.5, 0.4, 0.3, 0.9]))
    assert (progress.epoch, progress.best_epoch, progress.best_score) == (4, 2, 0.5)
    weights = train_state.unwrapped.state_dict()
    assert any(not torch.equal(weights[name], best) for name, best in train_state.best_weights.items())


def test_a_short_training_forgets_its_start_and_a_long_one_keeps_the_decay() -> None:
    """The moving average by hand, in numbers: n is the number of updates before this one."""
    model_ema = torch.tensor([0.0])
    update, expected = ema_update(0.5), 0.0
    for n, value in enumerate([4.0, 2.0, 8.0, 6.0, 1.0, 3.0, 7.0, 5.0, 9.0, 2.0, 4.0], start=1):
        update([model_ema], [torch.tensor([value])], n)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
        assert model_ema.item() == pytest.approx(expected)
    assert [min(0.5, (1 + n) / (10 + n)) for n in (1, 8)] == [2 / 11, 0.5]


def test_the_moving_average_is_evaluated_and_stored() -> None:
    config = OptimConfig(epochs=2, lr=2e-2, ema_decay=0.9)
    eval_model: list[nn.Module] = []
    train_state = new_train_state(config)
    run(train_state, config, TrainingPosition(), on_evaluate=eval_model.append)
    assert train_state.model_ema is not None
    assert eval_model == [train_state.model_ema.module] * 2
    for name, tensor in train_state.model_ema.module.state_dict().items():
        assert torch.equal(train_state.best_weights[name], tensor)
        assert not torch.equal(tensor, train_state.unwrapped.state_dict()[name])


def test_the_rate_warms_up_and_falls_as_a_cosine() -> None:
    config = OptimConfig(epochs=20, lr=1.0, warmup_fraction=0.1)
    schedule = new_train_state(config).lr_scheduler
    total = config.epochs * STEPS
    assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
    factor = schedule.lr_lambdas[0]
    warmup = total // 10
    assert factor(0) == pytest.approx(1 / warmup)
    assert factor(warmup - 1) == 1
    for share, expected in ((0, 1), (1 / 3, 0.005 + 0.995 * 0.75), (1 / 2, 0.5025), (1, 0.005)):
        assert factor(warmup + round(share * (total - warmup))) == pytest.approx(expected), share


@pytest.mark.parametrize("clip_norm", [0.5, None])
def test_gradients_are_clipped_to_their_joint_norm(clip_norm: float | None) -> None:
    config = OptimConfig(clip_norm=clip_norm)
    train_state = new_train_state(config)
    train_state.loss = Scaled(itertools.repeat(1e3))
    train_step(train_state, *next(batches()), config)
    gradients = [p.grad for p in train_state.network.parameters() if p.grad is not None]
    norm = float(nn.utils.get_total_norm(gradients))
    assert norm == pytest.approx(clip_norm, rel=1e-4) if clip_norm else norm > 10


def test_a_step_in_bfloat16_keeps_weights_and_loss_in_float32() -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        config = OptimConfig(precision=precision)
        train_state = new_train_state(config)
        losses.append(train_step(train_state, *next(batches()), config))
        assert {p.dtype for p in train_state.network.parameters()} == {torch.float32}
    assert losses[1].dtype == torch.float32
    assert losses[0] != losses[1], "autocast was off"
    torch.testing.assert_close(losses[0], losses[1], rtol=0.02, atol=0)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_names_step_and_checkpoint(value: str) -> None:
    config = OptimConfig(epochs=3)
    train_state = new_train_state(config)
    train_state.loss = Scaled(itertools.chain([1.0] * (STEPS + 2), itertools.repeat(float(value))))
    with pytest.raises(StageError, match=rf"variant v: the loss became {value} at step 11; .* epoch 1\."):
        run(train_state, config, TrainingPosition())


def test_weights_that_are_not_finite_are_found_before_evaluation() -> None:
    class Poison(nn.Module):
        """A loss of 0 whose gradient is NaN."""

        def forward(self, logits: Tensor, _: Tensor) -> Tensor:
            return (logits - logits.detach()).square().sum().sqrt()

    config = OptimConfig(epochs=1)
    train_state = new_train_state(config)
    train_state.loss = Poison()
    with pytest.raises(StageError, match=r"variant v: .* not finite after step 1; last good: no checkpoint"):
        train(
            train_state,
            batches(),
            1,
            config,
            TrainingPosition(),
            evaluate=lambda network: pytest.fail("scored"),
            save_checkpoint=lambda progress: None,
            on_step_end=lambda *_: None,
            name="v",
            seed=0,
        )


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_an_interrupted_training_resumes_to_the_same_result(tmp_path: Path, ema: float) -> None:
    config = OptimConfig(epochs=4, ema_decay=ema)
    whole, done = new_train_state(config), TrainingPosition()
    run(whole, config, done)

    class Killed(Exception):
        pass

    def save_then_die(progress: TrainingPosition) -> None:
        if progress.epoch == 2:
            save_checkpoint(tmp_path, first, progress, VariantConfig(name="v"), LABELS)
            raise Killed

    first = new_train_state(config)
    with pytest.raises(Killed):
        run(first, config, TrainingPosition(), save=save_then_die)
    second = new_train_state(config)
    progress = load_checkpoint(tmp_path, second, torch.device("cpu"))
    assert progress.epoch == 2
    run(second, config, progress, scores=itertools.count(2))
    assert [r.train_loss for r in progress.history] == [r.train_loss for r in done.history]
    for a, b in zip(
        whole.eval_model.state_dict().values(), second.eval_model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
