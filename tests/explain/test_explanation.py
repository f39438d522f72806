"""Maps at the size of the chip, and what is read off them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from canopy.errors import DataError
from canopy.explain.explanation import Explanation, at_chip_size
from canopy.explain.tint import COOL, WARM
from canopy.labels import LabelSet


def test_a_map_of_a_crop_lies_in_the_middle_of_the_chip() -> None:
    maps_KhW = torch.ones(1, 2, 2)
    maps_KhW[0, 1, 0] = 5
    found = at_chip_size(maps_KhW, 8, 11)
    assert found.shape == (1, 11, 11)
    assert float(found[0, :1].abs().sum() + found[0, 9:].abs().sum() + found[0, :, :1].abs().sum()) == 0
    inner = found[0, 1:9, 1:9]
    assert float(inner.min()) == 1
    row, column = divmod(int(inner.argmax()), 8)
    assert row >= 4
    assert column < 4
    torch.testing.assert_close(at_chip_size(maps_KhW, None, 2), maps_KhW)


def test_the_overlay_is_warm_for_and_cool_against_a_label() -> None:
    maps_KHW = np.zeros((2, 8, 8), np.float32)
    maps_KHW[1, 2, 3], maps_KHW[1, 6, 6] = 2, -2
    chip = np.full((8, 8, 3), 128, np.uint8)
    labels = LabelSet(("road", "water"))
    found = Explanation(chip, maps_KHW, np.zeros(2, np.float32), np.zeros(2, np.uint8), labels, {})
    assert found.peak("water") == (2, 3)
    shown = found.overlay("water").astype(int)
    assert np.abs(shown[2, 3] - WARM).sum() < np.abs(shown[0, 0] - WARM).sum()
    assert np.abs(shown[6, 6] - COOL).sum() < np.abs(shown[0, 0] - COOL).sum()
    assert (found.overlay("road") == 128).all(), "no evidence, no color"
    with pytest.raises(DataError, match="must be in the label set"):
        found.map_of("roads")
