"""``Explanation``, what ``Model.explain`` returns: an ensemble's evidence maps at the size of the chip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from canopy.explain.evidence import Method
from canopy.explain.tint import tint
from canopy.labels import LabelSet


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where in a chip the evidence for each label is.

    Args:
        chip_HWC: the decoded chip, uint8, (S, S, 3).
        maps_KHW: evidence for each label at each pixel, in logits; positive speaks for the label, negative
            against it, 0 where no network looks (outside a center crop).
        probs_K: probability of each label.
        decisions_K: 1 for a label that is predicted, else 0.
        labels: names of the K labels.
        methods: by member, how its maps were made.
    """

    chip_HWC: NDArray[np.uint8]
    maps_KHW: NDArray[np.float32]
    probs_K: NDArray[np.float32]
    decisions_K: NDArray[np.uint8]
    labels: LabelSet
    methods: Mapping[str, Method]

    def map_of(self, label: str) -> NDArray[np.float32]:
        """Evidence for one label, (S, S).

        Raises:
            DataError: when there is no such label.
        """
        found_HW: NDArray[np.float32] = self.maps_KHW[self.labels.index(label)]
        return found_HW

    def overlay(self, label: str) -> NDArray[np.uint8]:
        """The chip in gray, warm where something speaks for the label, cool where against it, (S, S, 3).

        Raises:
            DataError: when there is no such label.
        """
        found_HW = self.map_of(label)
        return tint(self.chip_HWC, found_HW, max(float(np.abs(found_HW).max()), 1e-12))

    def peak(self, label: str) -> tuple[int, int]:
        """Row and column of the pixel with the most evidence for the label.

        Raises:
            DataError: when there is no such label.
        """
        row, column = np.unravel_index(int(self.map_of(label).argmax()), self.map_of(label).shape)
        return int(row), int(column)


def at_chip_size(maps_KhW: Tensor, crop: int | None, size: int) -> Tensor:
    """Maps (K, h, w) of a center crop as maps (K, size, size) of the chip: bilinear, 0 outside the crop."""
    side = crop or size
    large = torch.nn.functional.interpolate(
        maps_KhW[None].float(), (side, side), mode="bilinear", align_corners=False
    )[0]
    if side == size:
        return large
    before = (size - side) // 2
    after = size - side - before
    return torch.nn.functional.pad(large, (before, after, before, after))
