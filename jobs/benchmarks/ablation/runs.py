"""Trainings of the ablation: Canopy's training loop in a Ray task, on chips that are decoded once.

A training stores its predictions in a cache outside the repository and returns the values for the file of
figures. The data have three disjoint splits: networks are trained on ``train``; epoch, learning rate,
calibration and thresholds are selected on ``val``; ``test`` is only scored.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jobs.benchmarks.ablation.data import AblationData
from jobs.benchmarks.ablation.tables import FIGURE_TEXTS
from numpy.typing import NDArray

from canopy import metrics
from canopy.config import EnsembleConfig, VariantConfig
from canopy.data.catalogue import Split
from canopy.ensemble.fit import fit_ensemble
from canopy.metrics import Counts, Floats, bootstrap
from canopy.predictions.io import Predictions
from canopy.train.logits import Symmetries, logits_to_probs
from canopy.train.loop import TrainState, train
from canopy.train.phase_plan import training_phases
from canopy.train.training_phase import DistributedContext, TrainingPhase
from canopy.train.training_records import TrainingPosition

FIGURES = tuple(FIGURE_TEXTS)
"""Names of the measured figures."""
RESAMPLES = 300
"""Number of bootstrap resamples of the test rows."""
EVALUATED_SPLITS: tuple[Split, ...] = ("val", "test")
"""Splits that the networks predict."""
TUNED = EnsembleConfig(objective="macro_f1", bootstrap=100)

Probs = NDArray[np.float32]
Decisions = NDArray[np.uint8]


@dataclass(frozen=True)
class RowPredictions:
    """Predictions of one row at one seed.

    Args:
        val_NK: probabilities of the ``val`` rows.
        test_NK: probabilities of the ``test`` rows.
        plain_NK: decisions on the ``test`` rows at 0.5.
        tuned_NK: decisions on the ``test`` rows at tuned thresholds.
        resampled_FB: value of each of :data:`FIGURES` on each bootstrap resample of the ``test`` rows.
    """

    val_NK: Probs
    test_NK: Probs
    plain_NK: Decisions
    tuned_NK: Decisions
    resampled_FB: Floats

    def write(self, path: Path) -> None:
        """Write the predictions atomically, as an npz file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(".part.npz")
        np.savez(partial_path, **vars(self))
        partial_path.replace(path)

    @classmethod
    def read(cls, path: Path) -> RowPredictions:
        """Read a file written by :meth:`write`."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**arrays)


def train_row(
    variant: VariantConfig, data: AblationData, file_name: str, symmetries: bool, report: bool
) -> dict[str, Any]:
    """Train and evaluate one variant; runs in a Ray task.

    Args:
        variant: complete config.
        data: data of the ablation; predictions are stored in its cache.
        file_name: name of the predictions in the cache.
        symmetries: also store predictions averaged over the eight symmetries of a chip, with the suffix
            ``-tta``.
        report: True predicts the test rows; False uses only the validation rows.

    Returns:
        Number of epochs, best epoch, its validation mAP, and the seconds of the whole training and of the
        median epoch.
    """
    torch.set_num_threads(variant.scale.threads_per_worker)
    start, progress, epoch_ends = now(), TrainingPosition(), [now()]
    rows = data.rows("train"), data.rows("val")
    training_phase, train_state = run_training_phases(variant, data, rows, progress, epoch_ends)
    if report:
        network = train_state.eval_model
        network.load_state_dict(train_state.best_weights)
        modes: dict[str, Symmetries] = {file_name: "none"}
        if symmetries:
            modes[f"{file_name}-tta"] = "d4"
        for name, tta in modes.items():
            probs = {
                part: logits_to_probs(training_phase.logits(network, data.rows(part), tta=tta))
                for part in EVALUATED_SPLITS
            }
            evaluate_members({variant.name: probs}, data).write(data.cache / f"{name}.npz")
    whole_2, epoch_2 = now() - start, np.median(np.diff(epoch_ends, axis=0), axis=0)
    times = {
        "seconds": whole_2[0],
        "cpu_seconds": whole_2[1],
        "seconds_per_epoch": epoch_2[0],
        "cpu_seconds_per_epoch": epoch_2[1],
    }
    found = {"epochs": progress.epoch, "best_epoch": progress.best_epoch, "val_map": progress.best_score}
    return {name: round(float(value), 4) for name, value in (found | times).items()}


def run_training_phases(
    variant: VariantConfig,
    data: AblationData,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    progress: TrainingPosition,
    epoch_ends: list[Floats],
) -> tuple[TrainingPhase, TrainState]:
    """Run Canopy's training loop, phase by phase.

    Args:
        variant: complete config.
        data: catalogue and chips.
        rows: catalogue rows to train on, and those that select the epoch.
        progress: of a new training; changed in place.
        epoch_ends: the time after each epoch is appended.
    """
    device = torch.device("cuda" if variant.scale.gpus_per_worker else "cpu")
    train_state: TrainState | None = None
    for number, phase in enumerate(training_phases(variant), start=1):
        part = phase.variant
        training_phase = TrainingPhase(
            part, data.catalogue, data.chips, DistributedContext(0, 1, device), *rows, kind=phase.kind
        )
        train_state = training_phase.train_state(lambda network: network, previous=train_state)
        if number == 1:
            training_phase.before_first_step(train_state)
        progress.start_phase(number)
        train(
            train_state,
            training_phase.batches(0),
            training_phase.batch_sampler.steps_per_epoch,
            part.optim,
            progress,
            evaluate=training_phase.evaluate,
            save_checkpoint=lambda _: epoch_ends.append(now()),
            on_step_end=lambda *_: None,
            name=variant.name,
            seed=part.seed * 1000,
        )
        training_phase.after_last_step(train_state, progress)
    assert train_state is not None
    return training_phase, train_state


def now() -> Floats:
    """Wall-clock time and CPU time of this process, in seconds."""
    return np.array([time.monotonic(), time.process_time()])


def evaluate_members(members: Mapping[str, Mapping[Split, Probs]], data: AblationData) -> RowPredictions:
    """Evaluate one network, or the mean of several, on the test rows.

    The decisions at 0.5 use the mean probability of the members, as in the plan. The tuned decisions are
    those of Canopy's ensemble stage: calibration, combination and thresholds fitted on ``val``.

    Args:
        members: probabilities by split, by name of the member.
        data: data of the ablation.
    """
    truth = {part: data.targets(part) for part in EVALUATED_SPLITS}
    ids = np.array(data.catalogue.ids)[data.rows("val")]
    labels = data.catalogue.labels
    fitting = {
        name: Predictions(ids=ids, probs_NK=probs["val"], labels=labels, targets_NK=truth["val"])
        for name, probs in members.items()
    }
    mean: dict[Split, Probs] = {
        part: np.asarray(np.mean([probs[part] for probs in members.values()], axis=0), np.float32)
        for part in EVALUATED_SPLITS
    }
    _, tuned_NK = fit_ensemble(fitting, TUNED).predict(
        {name: probs["test"] for name, probs in members.items()}
    )
    plain_NK = metrics.decide(mean["test"])
    resampled_FB = resampled(truth["test"], mean["test"], plain_NK, tuned_NK)
    return RowPredictions(mean["val"], mean["test"], plain_NK, tuned_NK, resampled_FB)


def figures(targets_NK: NDArray[np.uint8], predicted: RowPredictions) -> dict[str, float]:
    """:data:`FIGURES` on the test rows, in [0, 1]."""
    plain, tuned = (Counts.of(targets_NK, d) for d in (predicted.plain_NK, predicted.tuned_NK))
    values = [metric(counts) for counts in (plain, tuned) for metric in (metrics.macro_f1, metrics.micro_f1)]
    values.append(metrics.mean_average_precision(targets_NK, predicted.test_NK))
    return {name: round(float(value), 5) for name, value in zip(FIGURES, values, strict=True)}


def resampled(
    targets_NK: NDArray[np.uint8],
    probs_NK: Probs,
    plain_NK: Decisions,
    tuned_NK: Decisions,
    count: int = RESAMPLES,
) -> Floats:
    """:data:`FIGURES` on ``count`` bootstrap resamples of the rows, shape (F, B).

    Calls with the same number of rows draw the same resamples, so that figures of two networks are paired.
    """
    drawn = [
        metric(bootstrap.resampled_counts(targets_NK, decided_NK, count))
        for decided_NK in (plain_NK, tuned_NK)
        for metric in (metrics.macro_f1, metrics.micro_f1)
    ]
    mean_ap = []
    for weights_N in bootstrap.poisson_weights(count, len(targets_NK), seed=0):
        rows_n = np.repeat(np.arange(len(targets_NK)), weights_N)
        mean_ap.append(metrics.mean_average_precision(targets_NK[rows_n], probs_NK[rows_n]))
    return np.stack([*drawn, np.array(mean_ap)])


def per_class(
    targets_NK: NDArray[np.uint8], predicted: RowPredictions, names: Sequence[str]
) -> dict[str, Any]:
    """The F1 of each label, at 0.5 and at tuned thresholds."""
    return {
        at: dict(
            zip(names, metrics.per_class_f1(Counts.of(targets_NK, decided_NK)).round(4).tolist(), strict=True)
        )
        for at, decided_NK in (("plain", predicted.plain_NK), ("tuned", predicted.tuned_NK))
    }
