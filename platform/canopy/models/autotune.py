"""Timed steps choose how a network is executed on this machine; the choice is kept in the cache.

The cache is the directory ``execution`` beside the cached weights (:mod:`canopy.models.weights_cache`): one
file per machine (kind of processor, versions of torch), network and size of the input.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from canopy.errors import InputError
from canopy.models.execution import Execution, choose
from canopy.models.weights_cache import cache_directory
from canopy.storage import files

SECONDS = 6.0
"""Time for the steps of one choice, in seconds; the first round always ends."""
LONGEST_STEP = 1 / 3
"""Longest step, as a share of that time, that is worth timing: ten settings are timed twice each at least."""
MOST_ROUNDS = 5
"""Rounds after which the timings of one list of settings are enough."""
CPU_INFO = Path("/proc/cpuinfo")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Autotune:
    """A choice of settings for one network on one device.

    Args:
        default: the settings without a choice.
        most_threads: largest number of threads; 0 to keep that of ``default``.
        batch_sizes: numbers of images in a forward pass to try; empty to keep that of ``default``.
        key: what the choice depends on besides the machine: the network, the size of its input.
        seconds: time for the steps, above 0.
    """

    default: Execution
    most_threads: int
    batch_sizes: Sequence[int]
    key: Any
    seconds: float = SECONDS

    def settings(self, device: torch.device, seconds_per_image: Callable[[Execution], float]) -> Execution:
        """The settings of an earlier choice on this kind of machine, or else of timed steps.

        Args:
            device: where the network runs.
            seconds_per_image: executes the network once with some settings and returns the seconds per image.
        """
        path = self.path(device)
        found = _stored(path)
        if found is not None and found.threads <= max(self.most_threads, self.default.threads):
            logger.info("autotune: %s (chosen earlier on this kind of machine)", found.text)
            return found
        start = time.monotonic()
        chosen = self.measured(seconds_per_image)
        logger.info("autotune: %s (chosen in %.1f s)", chosen.text, time.monotonic() - start)
        try:
            files.write_json(str(path), chosen.to_json())
        except OSError as error:
            logger.warning("autotune: the choice cannot be kept in %s: %s", path, error)
        return chosen

    def measured(self, seconds_per_image: Callable[[Execution], float]) -> Execution:
        """Choose one setting after the other by timed steps; arguments as of :meth:`settings`.

        Where a step takes so long that timing would cost minutes, the default is kept.
        """
        chosen, start = self.default, time.monotonic()
        seconds_per_image(chosen)
        if time.monotonic() - start > LONGEST_STEP * self.seconds:
            logger.info("autotune: a step takes too long to be timed, the defaults are kept")
            return chosen
        count = len(self.default.alternatives(self.most_threads, self.batch_sizes))
        for axis in range(count):
            settings = chosen.alternatives(self.most_threads, self.batch_sizes)[axis]
            if len(settings) > 1:
                chosen = choose(timed_rounds(settings, seconds_per_image, self.seconds / count))
        return chosen

    def path(self, device: torch.device) -> Path:
        """The file of the choice in the cache."""
        parts = [machine(device), self.key, self.default.to_json(), self.most_threads, list(self.batch_sizes)]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return cache_directory().parent / "execution" / f"{digest[:16]}.json"


def timed_rounds(
    settings: Sequence[Execution], seconds_per_image: Callable[[Execution], float], seconds: float
) -> dict[Execution, list[float]]:
    """Seconds per image of each setting in each round, after one step of each that does not count.

    Args:
        settings: at least one.
        seconds_per_image: executes the network once with some settings.
        seconds: time after which no further round begins.
    """
    end = time.monotonic() + seconds
    for setting in settings:
        seconds_per_image(setting)
    timings: dict[Execution, list[float]] = {setting: [] for setting in settings}
    for _ in range(MOST_ROUNDS):
        for setting in settings:
            timings[setting].append(seconds_per_image(setting))
        if time.monotonic() >= end:
            break
    return timings


def on_threads(setting: Execution) -> None:
    """Set torch's number of threads in this process."""
    if torch.get_num_threads() != setting.threads:
        torch.set_num_threads(setting.threads)


def has_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` has instructions for bfloat16; elsewhere it is emulated and far slower."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    features: Mapping[str, Any] = torch.cpu.get_capabilities()
    return any(features.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def machine(device: torch.device) -> list[str]:
    """The kind of machine: its processor or GPU, and the version of torch."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return [name, platform.machine(), torch.__version__]


def processor_name() -> str:
    """Name of this machine's processor with its family and model, or what Python knows of it."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "cpu family", "model", "CPU part")
    pairs = (line.partition(":") for line in lines)
    found = {name.strip(): value.strip() for name, _, value in pairs if name.strip() in wanted}
    return " ".join(f"{name} {value}" for name, value in found.items()) or platform.processor()


def _stored(path: Path) -> Execution | None:
    try:
        return Execution.from_json(files.read_json(str(path)), str(path))
    except FileNotFoundError:
        return None
    except (OSError, InputError) as error:
        logger.warning("autotune: %s cannot be used: %s", path, error)
        return None
