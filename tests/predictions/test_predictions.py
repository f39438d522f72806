"""Predictions are validated on construction; members are aligned, parts joined."""

from __future__ import annotations

import numpy as np
import pytest
from tests.predictions.samples import predictions, same, truth

from canopy.errors import PredictionsError
from canopy.labels import LabelSet
from canopy.predictions.predictions import align, concatenate, refuse_shared_rows


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("probs_NK", np.nan, r"'chip_2', label 'road' must be finite"),
        ("probs_NK", np.inf, r"'chip_2', label 'road' must be finite"),
        ("probs_NK", 1.5, r"'chip_2', label 'road' must be in \[0, 1\]. Got: 1.5"),
        ("probs_NK", -0.1, r"'chip_2', label 'road' must be in"),
        ("targets_NK", 2, r"target of id 'chip_2', label 'road'"),
        ("targets_NK", 0.5, r"must be 0 or 1. Got: 0.5"),
    ],
)
def test_the_first_bad_value_is_named(column: str, value: float, match: str) -> None:
    array = np.zeros((6, 3), np.float64)
    array[2, 1] = array[4, 0] = value
    with pytest.raises(PredictionsError, match=match):
        predictions(6, 0, **{column: array})


def test_wrong_shapes_and_repeated_ids_are_refused() -> None:
    with pytest.raises(PredictionsError, match=r"shape \(6, 3\)"):
        predictions(probs_NK=np.zeros((6, 2)))
    with pytest.raises(PredictionsError, match="'x' twice"):
        predictions(ids=np.array(["a", "x", "b", "x", "c", "d"]))
    with pytest.raises(PredictionsError, match="must hold numbers"):
        predictions(probs_NK=np.full((6, 3), "a"))


def test_align_takes_rows_and_members_in_any_order() -> None:
    a, b = predictions(), predictions(seed=1, targets_NK=None)
    out = align({"b": b.rows(np.array([3, 1, 0, 2, 5, 4])), "a": a.rows(np.arange(6)[::-1])})
    assert list(out) == ["a", "b"]
    np.testing.assert_array_equal(out["a"].ids, np.sort(a.ids))
    np.testing.assert_array_equal(out["b"].probs_NK, b.probs_NK)
    np.testing.assert_array_equal(out["b"].targets_NK, a.targets_NK)


def test_align_names_the_first_difference() -> None:
    a = predictions()
    fewer = predictions(seed=1).rows(np.array([0, 1, 2, 4, 5]))
    with pytest.raises(PredictionsError, match="'chip_3' is in a and not in b"):
        align({"a": a, "b": fewer})
    with pytest.raises(PredictionsError, match=r"Label 1 must be the same.*'road' in a, 'rood' in b"):
        align({"a": a, "b": predictions(labels=LabelSet(("clear", "rood", "water")))})
    with pytest.raises(
        PredictionsError, match=r"Label 0.*'clear' in a, 'road' in b\. Give both files the same"
    ):
        align({"a": a, "b": predictions(labels=LabelSet(("road", "clear", "water")))})
    flipped = truth(a).copy()
    flipped[4, 2] ^= 1
    with pytest.raises(PredictionsError, match="target of id 'chip_4', label 'water'"):
        align({"a": a, "b": predictions(targets_NK=flipped)})
    with pytest.raises(PredictionsError, match="at least one member"):
        align({})


def test_parts_become_one_member_and_overlap_is_refused() -> None:
    whole = predictions()
    parts = [whole.rows(np.array([0, 1])), whole.rows(np.array([2, 3, 4, 5]))]
    same(concatenate(parts), whole)
    again = [*parts, whole.rows(np.array([4]))]
    for names, message in (
        ((), "part 2 and part 3"),
        (("m=a.csv", "m=b.csv", "m=c.csv"), "m=b.csv and m=c.csv"),
    ):
        with pytest.raises(
            PredictionsError, match=rf"^The ids of {message} must differ: .* Got: 'chip_4' in both"
        ):
            concatenate(again, names)
    renamed = predictions(labels=LabelSet(("clear", "rood", "water")))
    with pytest.raises(
        PredictionsError, match=r"'road' in m=a\.csv, 'rood' in m=b\.csv\. Give both files the same"
    ):
        concatenate([whole, renamed], ["m=a.csv", "m=b.csv"])


def test_test_rows_among_the_fitting_rows_are_refused() -> None:
    refuse_shared_rows(np.array(["a", "b"]), np.array(["c"]))
    with pytest.raises(PredictionsError, match=r"'b' is in both \(1 such rows\)"):
        refuse_shared_rows(np.array(["a", "b"]), np.array(["c", "b"]))
