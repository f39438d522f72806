from __future__ import annotations

import numpy as np
import pytest

from canopy.errors import DataError
from canopy.labels import LabelSet


def test_encode_and_decode_are_inverse() -> None:
    labels = LabelSet.of([("water", "clear"), ("road",)])
    assert labels.names == ("clear", "road", "water")
    targets_NK = labels.encode([("water", "clear"), (), ("road",)])
    np.testing.assert_array_equal(targets_NK, [[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    assert labels.decode(targets_NK) == [("clear", "water"), (), ("road",)]


@pytest.mark.parametrize("names", [(), ("a", "a"), ("a", "")])
def test_refuses_bad_names(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="label set"):
        LabelSet(names)


def test_unknown_label_names_the_nearest() -> None:
    with pytest.raises(DataError, match="Nearest: water"):
        LabelSet(("clear", "water")).encode([("watr",)])
