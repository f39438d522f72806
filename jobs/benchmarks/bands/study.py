"""Trains the networks that are missing, records each result at once, and writes the table."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import ray
from jobs.benchmarks.ablation.data import AblationData, prepare_config
from jobs.benchmarks.ablation.records import Line, Records
from jobs.benchmarks.ablation.runs import (
    EVALUATED_SPLITS,
    RowPredictions,
    evaluate_members,
    now,
    run_training_phases,
)
from jobs.benchmarks.ablation.tables import gain_interval
from numpy.typing import NDArray

from canopy import metrics
from canopy.config import (
    AugmentConfig,
    BandConfig,
    DataConfig,
    Experiment,
    GenerateConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ResourcesConfig,
    VariantConfig,
    fingerprint,
)
from canopy.data.synthetic.near_infrared import INFRARED_LABELS
from canopy.errors import DataError
from canopy.metrics import Counts
from canopy.runtime.cluster import connect
from canopy.runtime.console import Console
from canopy.train.logits import logits_to_probs
from canopy.train.training_records import TrainingPosition

STAGE = "bands"
RGB = (
    BandConfig(name="red", band=3),
    BandConfig(name="green", band=2),
    BandConfig(name="blue", band=1),
)
NETWORKS: dict[str, tuple[BandConfig, ...]] = {
    "rgb": RGB,
    "nir": (*RGB, BandConfig(name="nir", band=4)),
    "copy": (*RGB, BandConfig(name="copy", band=2)),
}
"""The compared networks by the bands that they see."""
TITLES = {"rgb": "red, green, blue", "nir": "with near infrared", "copy": "with a copy of green"}
FIGURES = {
    "infrared_map": "mAP, 2 labels of the near infrared",
    "infrared_macro_f1": "macro-F1 of these",
    "other_map": "mAP, 17 other labels",
    "other_macro_f1": "macro-F1 of these",
}
"""Figures on the test rows, with their titles; F1 at thresholds tuned on ``val``."""


@dataclass(frozen=True)
class Size:
    """What all trainings of a measurement share.

    Args:
        rows: number of chips.
        side: side of a chip in pixels.
        epochs: epochs of every training.
        backbone: timm name of the network.
        threads: CPU threads of a training.
    """

    rows: int
    side: int
    epochs: int
    backbone: str
    threads: int = 2


def data_config(network: str, size: Size, root: Path) -> DataConfig:
    """The generated chips as a network sees them."""
    return DataConfig(
        source="generated",
        root=str(root),
        generate=generate_config(size),
        image_size=size.side,
        bands=NETWORKS[network],
        dtype="uint8",
        val_fraction=0.2,
        test_fraction=0.3,
    )


def generate_config(size: Size) -> GenerateConfig:
    """The chips of all networks."""
    return GenerateConfig(rows=size.rows, size=size.side, min_rate=0.03, near_infrared=True)


def variant_of(size: Size, seed: int) -> VariantConfig:
    """The training, the same for all networks."""
    return VariantConfig(
        name="network",
        model=ModelConfig(backbone=size.backbone),
        loss=LossConfig(name="bce"),
        augment=AugmentConfig(flips=True),
        optim=OptimConfig(epochs=size.epochs, batch_size=64, lr=6e-3, weight_decay=0.02),
        scale=ResourcesConfig(workers=1, cpus_per_worker=1, threads_per_worker=size.threads),
        seed=seed,
    )


@dataclass(frozen=True)
class BandStudy:
    """A measurement on one data set.

    Args:
        size: what all trainings share.
        data: catalogue and chips by network; rows and splits are the same.
        records: file of figures.
        console: receives progress.
    """

    size: Size
    data: Mapping[str, AblationData]
    records: Records
    console: Console

    @classmethod
    def open(cls, size: Size, networks: Sequence[str], cache: Path, records: Records) -> BandStudy:
        """Start Ray and prepare the chips for each network, unless the cache holds them.

        Raises:
            DataError: when the networks would not get the same rows in the same splits.
        """
        connect()
        console, data = Console(), {}
        root = cache / f"chips-{fingerprint(generate_config(size))[:8]}"
        for network in networks:
            source = data_config(network, size, root)
            config = Experiment(preset="bands", data=source, variants=(variant_of(size, 0),))
            data[network] = prepare_config(config, cache, console)
        digests = {one.catalogue.digest() for one in data.values()}
        if len(digests) > 1:
            need, remedy = "must be split alike for all networks", "Give another number of --rows."
            raise DataError("The generated chips", need, f"{len(digests)} splits", remedy)
        return cls(size, data, records, console)

    def run(self, seeds: int) -> None:
        """Train every network at every seed that has no line yet."""
        task = ray.remote(num_cpus=1)(measure)
        shared = {network: ray.put(data) for network, data in self.data.items()}
        for seed in range(seeds):
            for network, data in self.data.items():
                variant = variant_of(self.size, seed)
                key = run_key(variant, data.catalogue.digest(), network, self.size)
                if self.records.find("run", key) is not None:
                    continue
                line = ray.get(task.remote(variant, shared[network]))
                head = {"kind": "run", "network": network, "seed": seed, "size": asdict(self.size)}
                self.records.add({**head, "fingerprint": key, **line})
                shown = ", ".join(f"{name} {value:.3f}" for name, value in line["figures"].items())
                self.console.say(STAGE, f"{TITLES[network]}, seed {seed}: {shown}")


def run_key(variant: VariantConfig, digest: str, network: str, size: Size) -> str:
    """What a figure depends on: training, digest of the catalogue, and the chips as the network sees them."""
    return fingerprint(variant, digest, network, data_config(network, size, Path()))


def measure(variant: VariantConfig, data: AblationData) -> Line:
    """Train and score one network; runs in a Ray task.

    Returns:
        The figures on the test rows, the best epoch and the time.
    """
    import torch

    torch.set_num_threads(variant.scale.threads_per_worker)
    start, progress, wall_s = now(), TrainingPosition(), time.monotonic()
    rows = data.rows("train"), data.rows("val")
    phase, train_state = run_training_phases(variant, data, rows, progress, [start])
    network = train_state.eval_model
    network.load_state_dict(train_state.best_weights)
    probs = {part: logits_to_probs(phase.logits(network, data.rows(part))) for part in EVALUATED_SPLITS}
    predicted = evaluate_members({variant.name: probs}, data)
    return {
        "figures": figures(data.targets("test"), predicted, data.catalogue.labels.names),
        "best_epoch": progress.best_epoch,
        "cpu_minutes": round(float((now() - start)[1]) / 60, 2),
        "minutes": round((time.monotonic() - wall_s) / 60, 2),
    }


def figures(
    targets_NK: NDArray[np.uint8], predicted: RowPredictions, names: Sequence[str]
) -> dict[str, float]:
    """:data:`FIGURES` on the test rows, in [0, 1]."""
    infrared_K = np.array([name in INFRARED_LABELS for name in names])
    found = []
    for columns_K in (infrared_K, ~infrared_K):
        targets_NG, decided_NG = targets_NK[:, columns_K], predicted.tuned_NK[:, columns_K]
        found.append(metrics.mean_average_precision(targets_NG, predicted.test_NK[:, columns_K]))
        found.append(metrics.macro_f1(Counts.of(targets_NG, decided_NG)))
    return {name: round(float(value), 5) for name, value in zip(FIGURES, found, strict=True)}


def gain(lines: Iterable[Line], network: str, name: str) -> tuple[float, float, int] | None:
    """Mean difference of a figure to the RGB twin of the same seed, half of its 95 % interval, the seeds.

    The interval is Student's, over the seeds; the test rows are the same for all. None with fewer than two
    seeds of both.
    """
    by_seed: dict[str, dict[int, float]] = {network: {}, "rgb": {}}
    for line in lines:
        if line["network"] in by_seed:
            by_seed[line["network"]][line["seed"]] = line["figures"][name]
    both = sorted(set(by_seed[network]) & set(by_seed["rgb"]))
    if len(both) < 2:
        return None
    found = gain_interval([by_seed[network][seed] - by_seed["rgb"][seed] for seed in both], row_error=0)
    return found.value, found.high - found.value, len(both)


def markdown(records: Records) -> str:
    """A table for each size: the mean figures of each network, and its gain over the RGB twin."""
    tables = []
    runs = [line for line in records.lines if line["kind"] == "run"]
    for size in dict.fromkeys(tuple(line["size"].items()) for line in runs):
        lines = [line for line in runs if tuple(line["size"].items()) == size]
        tables.append(_table(Size(**dict(size)), lines))
    return "\n\n".join(tables) if tables else "No network has been trained yet."


def _table(size: Size, lines: Sequence[Line]) -> str:
    out = [
        f"{size.rows:,} chips of {size.side} px, {size.backbone}, {size.epochs} epochs; test figures",
        "",
        "| bands | " + " | ".join(FIGURES.values()) + " | seeds |",
        "|---" * (len(FIGURES) + 2) + "|",
    ]
    for network, title in TITLES.items():
        own = [line for line in lines if line["network"] == network]
        if not own:
            continue
        means = [float(np.mean([line["figures"][name] for line in own])) for name in FIGURES]
        out.append(f"| {title} | {' | '.join(f'{mean:.3f}' for mean in means)} | {len(own)} |")
        gains = [gain(lines, network, name) for name in FIGURES] if network != "rgb" else []
        if gains and gains[0] is not None:
            cells = [f"{mean:+.3f} ± {half:.3f}" for mean, half, _ in (one for one in gains if one)]
            out.append(f"| – gain over red, green, blue | {' | '.join(cells)} | {gains[0][2]} |")
    return "\n".join(out)
