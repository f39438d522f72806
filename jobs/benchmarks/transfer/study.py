"""Trains what is missing, records each result at once, and writes the table."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
from jobs.benchmarks.ablation.data import AblationData, planet32_directory
from jobs.benchmarks.ablation.records import Line, Records
from jobs.benchmarks.ablation.runs import (
    EVALUATED_SPLITS,
    FIGURES,
    RowPredictions,
    evaluate_members,
    figures,
    now,
    run_training_phases,
)
from jobs.benchmarks.transfer.methods import METHODS, Size, data_config, variant_of
from numpy.typing import NDArray

from canopy.config import Experiment, VariantConfig, fingerprint
from canopy.metrics import Floats
from canopy.runtime.cluster import connect
from canopy.runtime.console import Console
from canopy.runtime.stage import Stage
from canopy.stages import prepare
from canopy.stages.context import StageContext
from canopy.storage.run_dir import RunDir
from canopy.train.logits import logits_to_probs
from canopy.train.training_records import TrainingPosition

STAGE = "transfer"
SELECTION_ROWS = 1500
"""Rows of ``val`` that select the epoch; all of ``val`` tunes calibration and thresholds."""
SHOWN = {"macro_f1_tuned": "macro-F1", "micro_f1_tuned": "micro-F1", "map": "mAP"}
"""Figures of the table, with their names in it."""


@dataclass(frozen=True)
class TransferStudy:
    """A measurement on one data set.

    Args:
        size: what all trainings share.
        data: catalogue and chips; predictions are stored in its cache.
        records: file of figures.
        console: receives progress.
    """

    size: Size
    data: AblationData
    records: Records
    console: Console

    @classmethod
    def open(cls, size: Size, root: str, cache: Path, records: Records) -> TransferStudy:
        """Start Ray and prepare the data, unless the cache holds them."""
        connect()
        console = Console()
        source = data_config(size, planet32_directory(root, cache.parent))
        config = Experiment(preset="transfer", data=source, variants=(variant_of("scratch", 1.0, 0, size),))
        context = StageContext(config, RunDir(str(cache / f"data-{fingerprint(source)[:8]}")), console)
        prepare.run(context)
        catalogue = prepare.load_catalogue(context)
        chips = prepare.shared_chips(context, catalogue, Stage.PREPARE)
        data = AblationData(catalogue, chips, cache / "predictions" / catalogue.digest()[:8])
        return cls(size, data, records, console)

    def run(self, methods: Iterable[str], shares: Iterable[float], seeds: int) -> None:
        """Train every method at every share and seed that has no line yet, small shares first."""
        task = ray.remote(num_cpus=1)(measure)
        data = ray.put(self.data)
        for share in sorted(shares):
            for seed in range(seeds):
                for method in methods:
                    variant = variant_of(method, share, seed, self.size)
                    key = fingerprint(variant, self.data.catalogue.digest(), share)
                    if self.records.find("run", key) is not None and self.path(key).exists():
                        continue
                    line = ray.get(task.remote(variant, data, share, key))
                    head = {"kind": "run", "method": method, "share": share, "seed": seed, "fingerprint": key}
                    self.records.add({**head, **line})
                    shown = ", ".join(f"{text} {line['figures'][name]:.3f}" for name, text in SHOWN.items())
                    self.console.say(STAGE, f"{METHODS[method]}, {share:.0%}, seed {seed}: {shown}")
                    self.summarize(method, share, seeds)

    def path(self, key: str) -> Path:
        """The file of predictions for the fingerprint ``key``."""
        return self.data.cache / f"{key}.npz"

    def summarize(self, method: str, share: float, seeds: int) -> None:
        """Record mean and interval of a method at a share over the seeds up to now.

        The interval covers both the choice of the test rows (bootstrap) and the seed: it is that of the
        resampled figures of all seeds together.
        """
        found = []
        for seed in range(seeds):
            variant = variant_of(method, share, seed, self.size)
            line = self.records.find("run", fingerprint(variant, self.data.catalogue.digest(), share))
            if line is not None and self.path(line["fingerprint"]).exists():
                found.append(line)
        drawn_FB = np.concatenate(
            [RowPredictions.read(self.path(line["fingerprint"])).resampled_FB for line in found], axis=1
        )
        self.records.add(
            {
                "kind": "row",
                "fingerprint": fingerprint(method, share, self.size.weights, self.size.input_size),
                "method": method,
                "share": share,
                "seeds": [line["seed"] for line in found],
                "figures": {name: interval(found, drawn_FB, name) for name in SHOWN},
                "cpu_minutes": round(float(np.mean([line["cpu_minutes"] for line in found])), 2),
            }
        )


def measure(variant: VariantConfig, data: AblationData, share: float, key: str) -> Line:
    """Train and score one variant; runs in a Ray task.

    Returns:
        The figures on the test rows, the epochs and the time.
    """
    import torch

    torch.set_num_threads(variant.scale.threads_per_worker)
    start, progress, wall_s = now(), TrainingPosition(), time.monotonic()
    rows = subset(data.rows("train"), share, variant.seed), data.rows("val")[:SELECTION_ROWS]
    phase, train_state = run_training_phases(variant, data, rows, progress, [start])
    trained = now() - start
    network = train_state.eval_model
    network.load_state_dict(train_state.best_weights)
    probs = {part: logits_to_probs(phase.logits(network, data.rows(part))) for part in EVALUATED_SPLITS}
    predicted = evaluate_members({variant.name: probs}, data)
    predicted.write(data.cache / f"{key}.npz")
    return {
        "figures": figures(data.targets("test"), predicted),
        "rows": len(rows[0]),
        "epochs": progress.epoch,
        "val_map": round(progress.best_score, 4),
        "cpu_minutes": round(float(trained[1]) / 60, 2),
        "minutes": round((time.monotonic() - wall_s) / 60, 2),
    }


def subset(rows_N: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """A random share of the rows, sorted, shape (n,); of one seed, a smaller share is part of a larger."""
    count = max(1, round(share * len(rows_N)))
    return np.sort(np.random.default_rng([seed, 0x7A]).permutation(rows_N)[:count])


def interval(lines: list[Line], drawn_FB: Floats, name: str) -> list[float]:
    """Mean over the seeds, and the 2.5 and 97.5 percentiles of the resampled figure."""
    mean = float(np.mean([line["figures"][name] for line in lines]))
    low, high = np.percentile(drawn_FB[FIGURES.index(name)], [2.5, 97.5])
    return [round(float(value), 4) for value in (mean, low, high)]


def markdown(records: Records) -> str:
    """The table: methods by share, the figures with their intervals."""
    rows: dict[tuple[float, str], Line] = {}
    for line in records.lines:
        if line["kind"] == "row":
            rows[line["share"], line["method"]] = line
    out = ["| labels | method | " + " | ".join(SHOWN.values()) + " | CPU minutes | seeds |", "|---" * 7 + "|"]
    for share, method in sorted(rows, key=lambda key: (key[0], list(METHODS).index(key[1]))):
        line = rows[share, method]
        cells = [f"{m:.3f} ({low:.3f}–{high:.3f})" for m, low, high in line["figures"].values()]
        cells += [f"{line['cpu_minutes']:.1f}", str(len(line["seeds"]))]
        out.append(f"| {share:.0%} | {METHODS[method]} | {' | '.join(cells)} |")
    return "\n".join(out)
