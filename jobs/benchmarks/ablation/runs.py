"""Trainings of the ablation: the product's own loop in a Ray task, over chips that are decoded once.

A training leaves its predictions in the cache (outside the repository) and gives back what is written to the
file of figures. Three disjoint parts: the networks learn from ``train``; ``val`` chooses the epoch, the
learning rate, calibration and thresholds; ``test`` is only ever scored.
"""

from __future__ import annotations

import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jobs.benchmarks.ablation.rows import DataName, Setting
from jobs.benchmarks.ablation.tables import FIGURE_TEXTS
from numpy.typing import NDArray

from canopy import metrics
from canopy.config import EnsembleConfig, Experiment, VariantConfig, derive, fingerprint
from canopy.data.catalogue import Catalogue, Split
from canopy.data.loading.chip_source import ChipSource
from canopy.ensemble.fit import fit_ensemble
from canopy.errors import DataError
from canopy.metrics import Counts, Floats, bootstrap
from canopy.predictions.io import Predictions
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage
from canopy.stages import prepare
from canopy.stages.context import StageContext
from canopy.storage.run_dir import RunDir
from canopy.train.evaluate import Symmetries, sigmoid
from canopy.train.loop import TrainState, train
from canopy.train.phases import training_phases
from canopy.train.progress import Progress
from canopy.train.task import DistributedContext, TrainTask

FIGURES = tuple(FIGURE_TEXTS)
RESAMPLES = 300
JUDGED: tuple[Split, ...] = ("val", "test")
TUNED = EnsembleConfig(objective="macro_f1", bootstrap=100)

Probs = NDArray[np.float32]
Decisions = NDArray[np.uint8]


@dataclass(frozen=True)
class Bench:
    """The data of an ablation.

    Args:
        catalogue: of the chips.
        chips: decoded.
        cache: where predictions are kept.
    """

    catalogue: Catalogue
    chips: ChipSource
    cache: Path

    def rows(self, part: Split) -> NDArray[np.int64]:
        """Catalogue rows of ``train``, ``val`` or ``test``."""
        return self.catalogue.rows(part)

    def targets(self, part: Split) -> NDArray[np.uint8]:
        """Their targets (N, K)."""
        return self.catalogue.targets_NK[self.rows(part)]


@dataclass(frozen=True)
class Predicted:
    """What one row says at one seed.

    Args:
        val_NK: probabilities of the rows that thresholds were tuned on.
        test_NK: probabilities of the rows to report on.
        plain_NK: decisions on the latter at 0.5.
        tuned_NK: decisions at tuned thresholds.
        resampled_FB: each of :data:`FIGURES` on each bootstrap resample of the test rows.
    """

    val_NK: Probs
    test_NK: Probs
    plain_NK: Decisions
    tuned_NK: Decisions
    resampled_FB: Floats

    def write(self, path: Path) -> None:
        """Keep it; a reader sees the whole file or none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".part.npz")
        np.savez(beside, **vars(self))
        beside.replace(path)

    @classmethod
    def read(cls, path: Path) -> Predicted:
        """Read what :meth:`write` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**arrays)


def lay_out(data: DataName, setting: Setting, root: str | None, cache: Path, console: Console) -> Bench:
    """Generate or unpack, decode, validate and split the chips, unless the cache holds them already.

    Raises:
        DataError: when the real chips are not where ``root`` says.
    """
    if data == "planet32":
        root = unpacked(root, cache.parent)
    config = Experiment(
        preset=f"ablation-{data}", data=derive(setting.data, root=root), variants=(setting.baseline,)
    )
    run = RunDir(str(cache / f"data-{fingerprint(config.data)[:8]}"))
    context = StageContext(config, run, console)
    prepare.run(context)
    catalogue = prepare.load_catalogue(context)
    chips = prepare.shared_chips(context, catalogue, Stage.PREPARE)
    return Bench(catalogue, chips, cache / "predictions" / catalogue.digest()[:8])


def unpacked(root: str | None, cache: Path) -> str:
    """The folder of the real chips in Kaggle's layout; their zip file is unpacked into the cache.

    Raises:
        DataError: when there is neither folder nor zip file.
    """
    if root is None:
        raise DataError("planet32", "must be found", "no folder", "Give --root, or set CANOPY_SHARED_DATA.")
    source = Path(root)
    if (source / "train-jpg").is_dir():
        return root
    archive, goal = source / "train-jpg.zip", cache / "planet32"
    if not archive.is_file():
        raise DataError(root, "must hold train-jpg/ or train-jpg.zip", "neither", "Give another --root.")
    if not goal.is_dir():
        beside = goal.with_name("planet32.part")
        shutil.rmtree(beside, ignore_errors=True)
        with zipfile.ZipFile(archive) as chips:
            chips.extractall(beside)
        shutil.copy(source / "train_v2.csv", beside / "train_v2.csv")
        beside.replace(goal)
    return str(goal)


def train_row(variant: VariantConfig, bench: Bench, keep: str, views: bool, report: bool) -> dict[str, Any]:
    """Train one variant and judge it; runs in a Ray task.

    Args:
        variant: complete.
        bench: data, and where predictions go.
        keep: file name in the cache.
        views: also keep the predictions averaged over the chip's eight symmetries, under ``keep`` + ``-tta``.
        report: score the test rows; False looks at the validation rows only.

    Returns:
        Epochs, best epoch, its validation mAP, and the times in seconds: of it all, and the median epoch's.
    """
    torch.set_num_threads(variant.scale.threads_per_worker)
    start, progress, ticks = now(), Progress(), [now()]
    task, train_state = taught(variant, bench, progress, ticks)
    if report:
        network = train_state.eval_model
        network.load_state_dict(train_state.best_weights)
        ways: dict[str, Symmetries] = {keep: "none", f"{keep}-tta": "d4"} if views else {keep: "none"}
        for name, tta in ways.items():
            probs = {part: sigmoid(task.logits(network, bench.rows(part), tta=tta)) for part in JUDGED}
            assess({variant.name: probs}, bench).write(bench.cache / f"{name}.npz")
    whole_2, epoch_2 = now() - start, np.median(np.diff(ticks, axis=0), axis=0)
    times = {
        "seconds": whole_2[0],
        "cpu_seconds": whole_2[1],
        "seconds_per_epoch": epoch_2[0],
        "cpu_seconds_per_epoch": epoch_2[1],
    }
    found = {"epochs": progress.epoch, "best_epoch": progress.best_epoch, "val_map": progress.best_score}
    return {name: round(float(value), 4) for name, value in (found | times).items()}


def taught(
    variant: VariantConfig, bench: Bench, progress: Progress, ticks: list[Floats]
) -> tuple[TrainTask, TrainState]:
    """The product's training loop, phase by phase; ``ticks`` gets the time after each epoch."""
    device = torch.device("cuda" if variant.scale.gpus_per_worker else "cpu")
    rows = bench.rows("train"), bench.rows("val")
    train_state: TrainState | None = None
    for phase, part in enumerate(training_phases(variant), start=1):
        task = TrainTask(part, bench.catalogue, bench.chips, DistributedContext(0, 1, device), *rows)
        train_state = task.train_state(lambda network: network, previous=train_state)
        progress.start_phase(phase)
        train(
            train_state,
            task.batches(0),
            task.batch_sampler.steps_per_epoch,
            part.optim,
            progress,
            evaluate=task.evaluate,
            save_checkpoint=lambda _: ticks.append(now()),
            on_step_end=lambda *_: None,
            name=variant.name,
            seed=part.seed * 1000,
        )
    assert train_state is not None
    return task, train_state


def now() -> Floats:
    """Wall clock and this process's CPU time, in seconds."""
    return np.array([time.monotonic(), time.process_time()])


def assess(members: Mapping[str, Mapping[Split, Probs]], bench: Bench) -> Predicted:
    """Judge one network, or the mean of several, on the test rows.

    At 0.5 the mean of the members' probabilities decides, as in the plan. The tuned decisions are those of
    the product's ensemble stage: calibration, combination and thresholds fitted on ``val``.
    """
    truth = {part: bench.targets(part) for part in JUDGED}
    ids = np.array(bench.catalogue.ids)[bench.rows("val")]
    labels = bench.catalogue.labels
    fitting = {
        name: Predictions(ids=ids, probs_NK=probs["val"], labels=labels, targets_NK=truth["val"])
        for name, probs in members.items()
    }
    mean: dict[Split, Probs] = {
        part: np.asarray(np.mean([probs[part] for probs in members.values()], axis=0), np.float32)
        for part in JUDGED
    }
    _, tuned_NK = fit_ensemble(fitting, TUNED).predict(
        {name: probs["test"] for name, probs in members.items()}
    )
    plain_NK = metrics.decide(mean["test"])
    resampled_FB = resampled(truth["test"], mean["test"], plain_NK, tuned_NK)
    return Predicted(mean["val"], mean["test"], plain_NK, tuned_NK, resampled_FB)


def figures(targets_NK: NDArray[np.uint8], predicted: Predicted) -> dict[str, float]:
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

    Every call with as many rows draws the same resamples, so that two networks' figures pair up.
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


def per_class(targets_NK: NDArray[np.uint8], predicted: Predicted, names: Sequence[str]) -> dict[str, Any]:
    """F1 of each label, at 0.5 and at tuned thresholds."""
    return {
        at: dict(
            zip(names, metrics.per_class_f1(Counts.of(targets_NK, decided_NK)).round(4).tolist(), strict=True)
        )
        for at, decided_NK in (("plain", predicted.plain_NK), ("tuned", predicted.tuned_NK))
    }
