"""The result of a prediction as a table."""

from __future__ import annotations

import numpy as np

from canopy.inference.prediction import Prediction, concatenate
from canopy.labels import LabelSet

LABELS = LabelSet(("road", "water"))


def prediction(ids: tuple[str | None, ...]) -> Prediction:
    probs_NK = np.linspace(0, 1, 2 * len(ids), dtype=np.float32).reshape(-1, 2)
    return Prediction(
        ids,
        probs_NK,
        (probs_NK >= 0.5).astype(np.uint8),
        LABELS,
        np.full(2, 0.5, np.float32),
        {"resnet": probs_NK * np.float32(0.5)},
        {"resnet": np.ones((len(ids), 3), np.float32)},
    )


def test_a_data_frame_has_a_row_per_image() -> None:
    found = prediction(("a.jpg", None, "c.jpg"))
    frame = found.to_pandas()
    names = ["id", "prob:road", "prob:water", "road", "water", "member:resnet:road", "member:resnet:water"]
    assert list(frame.columns) == [*names, "embedding:resnet"]
    assert frame["id"].tolist()[::2] == ["a.jpg", "c.jpg"]
    assert frame["id"].isna().tolist() == [False, True, False]
    assert frame["water"].tolist() == [False, True, True]
    np.testing.assert_array_equal(frame["member:resnet:road"], found.probs_NK[:, 0] / 2)
    assert frame["embedding:resnet"][0].tolist() == [1, 1, 1]
    assert found.predicted == [(), ("water",), ("road", "water")]


def test_parts_are_joined_in_their_order() -> None:
    joined = concatenate([prediction(("a",)), prediction(("b", "c"))])
    assert joined.ids == ("a", "b", "c")
    assert joined.probs_NK.shape == joined.member_probs["resnet"].shape == (3, 2)
    np.testing.assert_array_equal(joined.probs_NK[1:], prediction(("b", "c")).probs_NK)
    assert joined.embeddings["resnet"].shape == (3, 3)
