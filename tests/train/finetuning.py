"""Fine-tuning a small network on the real loop, without Ray: the phases as a worker runs them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from canopy.config import FinetuneConfig, ModelConfig, OptimConfig, VariantConfig
from canopy.labels import LabelSet
from canopy.models.network import MultiLabelNetwork, build_model
from canopy.train.checkpoint.state_io import load_checkpoint, read_progress, save_checkpoint
from canopy.train.final_weights import choose_final_weights
from canopy.train.finetune import reestimate_batch_norm
from canopy.train.loop import TrainState, train
from canopy.train.phase_plan import Phase, after_probe, fine_tuning_state, is_pretrained, training_phases
from canopy.train.probe_batches import ProbeBatches
from canopy.train.training_records import TrainingPosition, ValidationScores

STEPS, ROWS = 4, 8
LABELS = LabelSet(("a", "b", "c"))
RATES_K = np.array([0.5, 0.5, 0.5])


class Killed(Exception):
    """The process ends after a checkpoint."""


def pretrained(folder: Path, backbone: str = "test_resnet") -> str:
    """A file of weights, as if from an earlier training."""
    torch.manual_seed(7)
    network: Any = timm.create_model(backbone, num_classes=0).train()
    with torch.no_grad():
        for seed in range(4):  # batch-norm statistics of their own
            network(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 0.7 + 0.4)
    path = folder / f"{backbone}.safetensors"
    save_file(network.state_dict(), path)
    return str(path)


def variant(
    weights: str, model: dict[str, Any] | None = None, optim: dict[str, Any] | None = None, **finetune: Any
) -> VariantConfig:
    """A variant of test size that starts from ``weights``."""
    return VariantConfig(
        name="v",
        model=ModelConfig(**{"backbone": "test_resnet", "weights": weights, **(model or {})}),
        optim=OptimConfig(**{"epochs": 3, "lr": 1e-2, "weight_decay": 0.02, **(optim or {})}),
        finetune=FinetuneConfig(**finetune),
    )


def batches(seed: int, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Images whose label k says whether band k is bright."""
    for step in itertools.count(first_step):
        generator = torch.Generator().manual_seed(seed + step)
        bright_nK = (torch.rand(ROWS, 3, generator=generator) < 0.5).float()
        noise = 0.5 * torch.randn(ROWS, 3, 32, 32, generator=generator)
        yield noise + (2 * bright_nK - 1)[:, :, None, None], bright_nK


def distance(state: dict[str, Tensor], first: dict[str, Tensor]) -> float:
    """Distance of the backbone's parameters from their first values."""
    names = [name for name in first if is_pretrained(name) and not name.endswith(("mean", "var", "tracked"))]
    return float(sum(float((state[name] - first[name]).square().sum()) for name in names) ** 0.5)


@dataclass
class Tuning:
    """One training, with a record of what happened in it."""

    variant: VariantConfig
    score: Callable[[MultiLabelNetwork, TrainingPosition], float] = lambda network, progress: progress.epoch
    folder: Path | None = None
    die_after: int | None = None
    after_epoch: list[dict[str, Tensor]] = field(default_factory=list)
    """The weights in training after each epoch."""
    extracted: int = 0
    """Batches of which a probe computed the features."""
    states: list[TrainState] = field(default_factory=list)
    starts: list[dict[str, Tensor]] = field(default_factory=list)
    """The weights at the start of each phase."""
    progress: TrainingPosition = field(default_factory=TrainingPosition)
    scores: dict[str, float] = field(default_factory=dict)

    def run(self) -> TrainState:
        """Train through all phases, from the checkpoint in ``folder`` if there is one."""
        saved = self.folder is not None and (self.folder / "progress.json").exists()
        if saved and self.folder:
            self.progress = read_progress(self.folder)
        state: TrainState | None = None
        for number, phase in enumerate(training_phases(self.variant), start=1):
            state = self.state_of(phase, state)
            self.states.append(state)
            if number < self.progress.phase:
                continue
            if saved and self.folder and number == self.progress.phase:
                load_checkpoint(self.folder, state, torch.device("cpu"))
            elif number == 1 and phase.variant.finetune.batch_norm == "reestimated":
                reestimate_batch_norm(state.unwrapped, self.calibration())
            self.starts.append({name: t.clone() for name, t in state.unwrapped.state_dict().items()})
            self.progress.start_phase(number)
            self.train(phase, state)
            if phase.kind == "whole":
                self.scores |= choose_final_weights(
                    state, self.progress, phase.variant.finetune, self.evaluate, self.calibration
                )
        assert state is not None
        return state

    def state_of(self, phase: Phase, previous: TrainState | None) -> TrainState:
        """The state at the start of a phase."""
        torch.manual_seed(phase.variant.seed)

        def make(network: MultiLabelNetwork) -> TrainState:
            loss, keep = nn.BCEWithLogitsLoss(), previous is not None
            return fine_tuning_state(network, lambda inner: inner, loss, phase.variant, STEPS, keep)

        if previous is not None:
            return after_probe(previous, make)
        network = build_model(phase.variant.model, 3, RATES_K)
        if phase.kind == "probe":
            network.freeze_backbone()
        return make(network)

    def train(self, phase: Phase, state: TrainState) -> None:
        """One phase on the real loop."""

        def save(progress: TrainingPosition) -> None:
            self.after_epoch.append({name: t.clone() for name, t in state.unwrapped.state_dict().items()})
            if self.folder is not None:
                save_checkpoint(self.folder, state, progress, self.variant, LABELS)
            if progress.epoch == self.die_after:
                raise Killed

        source = batches(phase.variant.seed, self.progress.phase_epoch * STEPS)
        if phase.kind == "probe":
            source = self.probe_batches(phase, state)
        train(
            state,
            source,
            STEPS,
            phase.variant.optim,
            self.progress,
            evaluate=self.evaluate,
            save_checkpoint=save,
            on_step_end=lambda *_: None,
            name="v",
            seed=phase.variant.seed,
        )

    def probe_batches(self, phase: Phase, state: TrainState) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of features, counted."""
        network = state.unwrapped
        assert isinstance(network, MultiLabelNetwork)

        def extract(images: Tensor) -> Tensor:
            self.extracted += 1
            return network.pooled(images)

        def view(number: int) -> Iterator[tuple[Tensor, Tensor]]:
            return itertools.islice(batches(phase.variant.seed, number * STEPS), STEPS)

        source = ProbeBatches(extract, view, phase.variant.finetune.probe_views, phase.variant.seed)
        return source.batches(self.progress.phase_epoch, 0, phase.variant.optim.epochs)

    def evaluate(self, network: nn.Module) -> ValidationScores:
        """The score that the test wants."""
        assert isinstance(network, MultiLabelNetwork)
        network.eval()
        value = float(self.score(network, self.progress))
        return ValidationScores(value, value, value)

    def calibration(self) -> Iterator[Tensor]:
        """Images for batch-norm statistics."""
        return (images for images, _ in itertools.islice(batches(0), 3))
