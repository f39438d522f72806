"""Images per second of the presets' networks: settings that autotune chooses, and the defaults."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from jobs.benchmarks.measurement import Report, alternate

from canopy.config import VariantConfig
from canopy.config.presets import PRESETS
from canopy.inference.autotune import autotune_of
from canopy.inference.chips import ChipDecoder
from canopy.inference.networks import Networks
from canopy.models.autotune import Autotune, on_threads
from canopy.models.execution import Execution
from canopy.models.network import MultiLabelNetwork, build_model
from canopy.runtime.malloc import keep_freed_memory
from canopy.train.autotune import EVALUATION_BATCH_SIZE, EVALUATION_BATCHES, seconds, timed_step
from canopy.train.trained_model import TrainedModel

LABELS = 17
CPU = torch.device("cpu")
Step = Callable[[Execution], float]


def autotune(
    presets: tuple[str, ...] = ("demo", "planet32", "planet32-long", "planet32-transfer"),
    threads: int = 2,
    repeats: int = 5,
    steps: int = 4,
    out: Path | None = None,
) -> None:
    """Training, evaluation and prediction of each network of some presets, on the CPU, tuned and by default.

    Networks are untrained and images random, both of the preset's sizes. In each repeat the two settings
    of a pair run one after the other, ``steps`` steps each. The cache of earlier choices is not used.
    Where the default is chosen, the ratio shows the noise of the machine.

    Args:
        presets: names of presets.
        threads: torch's threads of the defaults, and the most that may be chosen.
        repeats: pairs of readings.
        steps: steps of a reading.
        out: JSON-lines file to append records to.
    """
    keep_freed_memory()
    report = Report(f"autotune, {threads} thread(s)", out)
    seen: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="cb") as cache, patch.dict(os.environ, CANOPY_CACHE=cache):
        for preset in presets:
            config = PRESETS[preset]()
            decoder = ChipDecoder.of(config.data)
            for variant in config.variants:
                key = f"{variant.model.untrained} {variant.augment.crop} {variant.tta} {decoder.shape}"
                if key not in seen:
                    seen.add(key)
                    compare(f"{preset} {variant.name}", variant, decoder, threads, (repeats, steps), report)
    report.show()


def compare(
    name: str,
    variant: VariantConfig,
    decoder: ChipDecoder,
    threads: int,
    repeats_and_steps: tuple[int, int],
    report: Report,
) -> None:
    """Add the paired ratios of one variant to the report."""
    torch.manual_seed(0)
    network = build_model(variant.model.untrained, LABELS)
    side = variant.augment.crop or decoder.size
    batch_size, half = variant.optim.batch_size, variant.optim.precision == "bfloat16"
    key = [variant.model.untrained.model_dump(mode="json"), side, batch_size]
    default = Execution(threads, EVALUATION_BATCH_SIZE)
    whole = timed_step(network, side, batch_size, 0.2, half)
    tuned = Autotune(default, threads, EVALUATION_BATCHES, key).settings(CPU, whole)
    report.add_value(f"{name}: training", tuned.text)
    training = timed_step(network, side, batch_size, 0.0, half)

    evaluated = evaluation_step(network, side, half)
    for what, step in (("training", training), ("evaluation", evaluated)):
        add_pairs(f"{name}: {what}", step, default, tuned, repeats_and_steps, report)
    networks = Networks.prepare({"m": [TrainedModel(variant, network.eval())]}, CPU)
    tune, predict = autotune_of(networks, decoder, threads)
    chosen = tune.settings(CPU, predict)
    report.add_value(f"{name}: prediction", chosen.text)
    add_pairs(f"{name}: prediction", predict, tune.default, chosen, repeats_and_steps, report)


def evaluation_step(network: MultiLabelNetwork, side: int, half: bool) -> Step:
    """A function that evaluates one batch under some settings and returns the seconds per image."""
    images_NCHW = torch.randn(max(EVALUATION_BATCHES), 3, side, side)

    def step(setting: Execution) -> float:
        on_threads(setting)
        network.to(memory_format=setting.torch_format).eval()
        given = images_NCHW[: setting.batch_size].contiguous(memory_format=setting.torch_format)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return seconds(lambda: network(given), CPU) / setting.batch_size

    return step


def add_pairs(
    name: str,
    step: Step,
    default: Execution,
    tuned: Execution,
    repeats_and_steps: tuple[int, int],
    report: Report,
) -> None:
    """Time both settings in turn, and add images/s and their ratio."""
    repeats, steps = repeats_and_steps
    found: dict[str, list[float]] = {"default": [], "tuned": []}

    def contender(kind: str, setting: Execution) -> Callable[[], None]:
        def run() -> None:
            step(setting)
            found[kind].append(1 / float(np.mean([step(setting) for _ in range(steps)])))

        return run

    alternate([contender("default", default), contender("tuned", tuned)], repeats)
    for kind, rates in found.items():
        report.add_value(f"{name}, {kind}, images/s", [round(rate, 1) for rate in rates])
    ratios = [a / b for a, b in zip(found["tuned"], found["default"], strict=True)]
    report.add_ratio(f"{name}: images/s, tuned / default", ratios, ">= 1")
