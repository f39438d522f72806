"""How batch inference executes its networks: chosen once per job by timed steps, and kept with its output.

A large job is worth some seconds of timed steps, in a process like those that will predict it. The choice is
written into the directory of the shards, so that a later start goes on with the same settings and gives the
same values to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.errors import InputError
from canopy.inference.chips import ChipDecoder
from canopy.inference.model import Model
from canopy.inference.networks import Networks
from canopy.inference.prediction import Prediction
from canopy.inference.shards import ShardDirectory
from canopy.models.autotune import Autotune, has_bfloat16, on_threads, timed_rounds
from canopy.models.execution import Execution, choose
from canopy.storage import files

LEAST_IMAGES = 20_000
"""Images from which on a job is tuned; fewer take hardly longer than the timed steps."""
CPU_BATCHES, GPU_BATCHES = (8, 16, 32, 64, 128), (64, 128, 256, 512)
"""Images in a forward pass that are tried."""
SAMPLE_IMAGES = 256
"""Images of the job whose predictions compare two precisions."""
LEAST_SAMPLE = 32
"""Readable ones among them that the comparison needs."""
CHANGED_DECISIONS, PROBABILITY_CHANGE = 1e-3, 2e-3
"""What another precision may change: share of the decisions, and mean distance of the probabilities."""


def tuned_execution(model: Model, most_threads: int, sample_NHWC: NDArray[Any] | None = None) -> Execution:
    """The fastest settings for a model's networks in this process.

    Args:
        model: the model.
        most_threads: threads that the process may use, 1 or more.
        sample_NHWC: chips of the job; with them bfloat16 is chosen where the device has instructions for it,
            it is faster, and the predictions of these chips are the same within noise. None: the precision
            is left alone.
    """
    networks = model.networks
    tune, step = autotune_of(networks, model.decoder, most_threads)
    chosen = tune.settings(networks.device, step)
    if sample_NHWC is None or networks.precision is not None or not has_bfloat16(networks.device):
        return chosen
    half = replace(chosen, precision="bfloat16")
    faster = choose(timed_rounds([chosen, half], step, tune.seconds / 3))
    same = faster == half and predictions_agree(model, chosen, half, sample_NHWC)
    return half if same else chosen


def autotune_of(
    networks: Networks, decoder: ChipDecoder, most_threads: int
) -> tuple[Autotune, Callable[[Execution], float]]:
    """The choice to make for some networks, and the timed step that it is made by.

    Args:
        networks: the networks.
        decoder: makes their chips.
        most_threads: threads that this process may use, 1 or more; on a GPU they are not chosen.
    """
    on_gpu = networks.device.type == "cuda"
    batches = GPU_BATCHES if on_gpu else CPU_BATCHES
    default = Execution(most_threads, networks.batch_size)
    tune = Autotune(default, 0 if on_gpu else most_threads, batches, key_of(networks, decoder))
    return tune, timed_step(networks, decoder, max(batches))


def timed_step(networks: Networks, decoder: ChipDecoder, images: int) -> Callable[[Execution], float]:
    """A function that predicts one batch under some settings and returns the seconds per image.

    Args:
        networks: the networks.
        decoder: makes their chips.
        images: largest number of images in a batch.
    """
    levels = np.random.default_rng(0).integers(0, 255, (images, *decoder.shape), np.uint8)
    chips_NHWC = levels.astype(decoder.dtype)

    def step(setting: Execution) -> float:
        on_threads(setting)
        ready = networks.executed(setting)
        start = time.perf_counter()
        ready(chips_NHWC[: setting.batch_size])
        return (time.perf_counter() - start) / setting.batch_size

    return step


def key_of(networks: Networks, decoder: ChipDecoder) -> list[object]:
    """What the timings depend on besides the machine: networks, symmetries, crops, size of the chips."""
    members = [
        [
            trained.variant.model.untrained.model_dump(mode="json"),
            trained.variant.tta,
            trained.variant.augment.crop,
            networks.precision or trained.variant.optim.precision,
        ]
        for folds in networks.members.values()
        for trained in folds
    ]
    return [members, list(decoder.shape)]


def predictions_agree(model: Model, first: Execution, second: Execution, chips_NHWC: NDArray[Any]) -> bool:
    """Whether two settings give the same predictions of some chips within noise."""
    if len(chips_NHWC) < LEAST_SAMPLE:
        return False
    found = [
        replace(model, networks=model.networks.executed(setting)).predict_decoded(chips_NHWC)
        for setting in (first, second)
    ]
    return same_within_noise(*found)


def same_within_noise(first: Prediction, second: Prediction) -> bool:
    """Whether decisions and probabilities of the same images differ by less than scores can show.

    At most one decision of 1,000 may change, and the probabilities by 0.002 on average. The standard error
    of micro-F1 over some thousand chips is larger than what such a change can do to it.
    """
    changed = float(np.mean(first.decisions_NK != second.decisions_NK))
    distance = float(np.mean(np.abs(first.probs_NK - second.probs_NK)))
    return changed <= CHANGED_DECISIONS and distance <= PROBABILITY_CHANGE


def kept_execution(directory: ShardDirectory) -> Execution | None:
    """The settings that an earlier start of the job chose; None without.

    Raises:
        ConfigError: when their file is damaged.
    """
    path = directory.execution_path
    if not files.exists(path):
        return None
    try:
        found = files.read_json(path)
    except InputError:
        found = None  # no JSON
    return Execution.from_json(found, files.shown(path))


def keep_execution(directory: ShardDirectory, execution: Execution) -> None:
    """Write the settings beside the shards."""
    files.write_json(directory.execution_path, execution.to_json())
