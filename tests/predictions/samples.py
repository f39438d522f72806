"""Random predictions for the tests, and their comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from canopy.labels import LabelSet
from canopy.predictions.predictions import Predictions

LABELS = LabelSet(("clear", "road", "water"))


def predictions(rows: int = 6, seed: int = 0, **changes: Any) -> Predictions:
    rng = np.random.default_rng(seed)
    given: dict[str, Any] = {
        "ids": np.array([f"chip_{n}" for n in range(rows)]),
        "probs_NK": rng.random((rows, 3)).astype(np.float32),
        "labels": LABELS,
        "targets_NK": rng.integers(0, 2, (rows, 3)).astype(np.uint8),
    }
    return Predictions(**{**given, **changes})


def truth(given: Predictions) -> NDArray[np.uint8]:
    assert given.targets_NK is not None
    return given.targets_NK


def same(a: Predictions, b: Predictions) -> None:
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_array_equal(a.probs_NK, b.probs_NK)
    np.testing.assert_array_equal(a.targets_NK, b.targets_NK)
    assert a.labels == b.labels
