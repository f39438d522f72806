from __future__ import annotations

import pytest
from pydantic import ValidationError

from canopy.config import AUGMENT_PRESETS, AugmentConfig, derive


def test_two_kinds_of_crop_are_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"crop_padding must be 0 when augment.crop is set.* Got: 4 and"
    ):
        AugmentConfig(crop=32, crop_padding=4)
    assert AugmentConfig(crop=32).crop == 32


def test_named_augmentations_differ() -> None:
    assert AUGMENT_PRESETS["flips"] == AugmentConfig()
    assert derive(AUGMENT_PRESETS["flips"], flips=False) == AUGMENT_PRESETS["none"]
    assert len(set(map(str, AUGMENT_PRESETS.values()))) == len(AUGMENT_PRESETS)
