"""``Execution``: how a network is executed on a device, and the choice among several by their timings.

None of these settings changes a result by more than rounding, except the precision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Literal, Self

import torch

from canopy.errors import ConfigError

MemoryFormat = Literal["channels_last", "contiguous"]
TORCH_FORMATS: Mapping[str, torch.memory_format] = {
    "channels_last": torch.channels_last,
    "contiguous": torch.contiguous_format,
}
LEAST_GAIN = 0.05
"""Share of the time that a setting must save to be preferred to the default."""
MOST_OF_ROUNDS = 0.8
"""Share of the rounds in which it must be faster."""


@dataclass(frozen=True)
class Execution:
    """How a network is executed.

    Args:
        threads: torch's threads on a CPU, 1 or more.
        batch_size: images in one forward pass without gradients, 1 or more. The batches of a training are
            those of its config.
        memory_format: order of the axes of images and weights in memory.
        precision: of the networks; None: each as it was trained.
    """

    threads: int
    batch_size: int
    memory_format: MemoryFormat = "channels_last"
    precision: Literal["float32", "bfloat16"] | None = None

    @property
    def torch_format(self) -> torch.memory_format:
        """The memory format as torch's constant."""
        return TORCH_FORMATS[self.memory_format]

    @property
    def text(self) -> str:
        """The settings in words, for the log."""
        precision = "" if self.precision is None else f", {self.precision}"
        order = self.memory_format.replace("_", " ")
        return f"{order}, {self.threads} thread(s), batches of {self.batch_size} images{precision}"

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object; keys in the order of the fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any, thing: str) -> Self:
        """Undo :meth:`to_json`.

        Args:
            value: the JSON value.
            thing: name of its place; used in the error message.

        Raises:
            ConfigError: when the value is none of :meth:`to_json`.
        """
        try:
            found = cls(**value)
            known = found.memory_format in TORCH_FORMATS and found.precision in {None, "float32", "bfloat16"}
            counts = (found.threads, found.batch_size)
            if not known or any(type(count) is not int or count < 1 for count in counts):
                raise ValueError(str(value))
        except (TypeError, ValueError) as error:
            remedy = "Delete the file; the settings are then measured again."
            raise ConfigError(thing, "must hold the settings of an execution", error, remedy) from None
        return found

    def alternatives(self, most_threads: int, batch_sizes: Sequence[int]) -> list[list[Execution]]:
        """What may be changed, one setting at a time; the first of each list is this setting itself.

        Args:
            most_threads: largest number of threads; 0: only this one.
            batch_sizes: numbers of images in one forward pass; empty: only this one.
        """
        threads = [most_threads >> n for n in range(most_threads.bit_length())]
        changes: list[list[dict[str, Any]]] = [
            [{"threads": count} for count in threads],
            [{"memory_format": name} for name in TORCH_FORMATS],
            [{"batch_size": size} for size in batch_sizes],
        ]
        lists = [[self, *(replace(self, **change) for change in axis)] for axis in changes]
        return [list(dict.fromkeys(axis)) for axis in lists]


def choose(timings: Mapping[Execution, Sequence[float]]) -> Execution:
    """The fastest of several settings by timings in rounds; a gain that is small or rare does not count.

    Settings are compared within each round, because other processes slow all settings of a round alike. A
    setting is preferred to the first when its time, divided by the first one's in the same round, is below 1
    by ``LEAST_GAIN`` or more in the median of the rounds, and below 1 in ``MOST_OF_ROUNDS`` of them.

    Args:
        timings: seconds per image by setting, one value per round; the first setting is the default.
    """
    default = next(iter(timings))
    ratios = {
        setting: [own / base for own, base in zip(found, timings[default], strict=True)]
        for setting, found in timings.items()
    }
    faster = {
        setting: median(values)
        for setting, values in ratios.items()
        if median(values) <= 1 - LEAST_GAIN
        and sum(value < 1 for value in values) >= MOST_OF_ROUNDS * len(values)
    }
    return min(faster, key=lambda setting: faster[setting], default=default)
