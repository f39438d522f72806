"""Tables for people: unambiguous tags, gains that add up, no formulas."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from tests.ensemble.worlds import FAST, LABELS, world

from canopy.ensemble.csv_outputs import decisions_csv, per_class_csv, per_class_rows, tag_separator
from canopy.ensemble.fit import fit_ensemble
from canopy.labels import LabelSet


@pytest.mark.parametrize(
    ("labels", "separator"),
    [
        (("road", "bare_soil"), " "),
        (("road", "bare soil"), ";"),
        (("road; wide", "bare soil"), "|"),
        (("a ;|,/", "b"), "!"),
        (("a\tb", "c"), ";"),
    ],
)
def test_tags_can_be_split_whatever_the_labels_hold(labels: tuple[str, ...], separator: str) -> None:
    label_set = LabelSet(labels)
    assert tag_separator(label_set) == separator
    assert separator not in "".join(labels)


def test_decisions_with_blanks_in_labels_read_back() -> None:
    labels = LabelSet(("Urban fabric", "Mixed forest", "image", "id"))
    decisions_NK = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]], np.uint8)
    data = decisions_csv(np.array(["x", "=1+1", "y"]), decisions_NK, labels)
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert [row["image_name"] for row in rows] == ["x", "'=1+1", "y"]
    assert [row["tags"].split(";") for row in rows[:2]] == [["Urban fabric", "Mixed forest"], ["image", "id"]]
    assert rows[2]["tags"] == ""


def test_gains_add_up_and_labels_cannot_be_formulas() -> None:
    labels = LabelSet(("=1+1", *LABELS.names[1:]))
    members = {
        name: type(p)(p.ids, p.probs_NK, labels, targets_NK=p.targets_NK) for name, p in world(240).items()
    }
    ensemble = fit_ensemble(members, FAST)
    rows = per_class_rows(ensemble)
    for row in rows:
        assert row.f1_is == "estimated"
        if row.f1 is not None:
            assert row.f1 == row.f1_ensemble
            gained = (row.gain_tuning or 0) + (row.gain_combining or 0)
            assert gained == pytest.approx((row.f1_ensemble or 0) - (row.f1_single_half or 0))
    table = list(csv.DictReader(io.StringIO(per_class_csv(ensemble).decode())))
    assert [row["label"] for row in table] == ["'=1+1", *LABELS.names[1:]]
    assert any(float(row["gain_combining"] or 0) < 0 for row in table) or all(
        not row["gain_combining"].startswith("'") for row in table
    )
