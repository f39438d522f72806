"""Score cards hold the metrics of their rows and round-trip through JSON, key by key."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.metrics.draws import draw

from canopy import metrics
from canopy.errors import PredictionsError
from canopy.labels import LabelSet
from canopy.metrics.score_card import ScoreCard, decision_scores, score_card
from canopy.storage.json_fields import JsonField

LABELS = LabelSet(("a", "b", "c"))


def card_of(resamples: int = 100) -> ScoreCard:
    """A card with a label without positives, and its figures at 0.5."""
    targets_NK, probs_NK = draw(6, classes=3)
    targets_NK[:, 1] = 0
    card = score_card(targets_NK, metrics.decide(probs_NK, 0.4), probs_NK, LABELS, resamples)
    return card.with_half(decision_scores(targets_NK, metrics.decide(probs_NK), LABELS, resamples))


@pytest.mark.parametrize("rows", [400, 20000])
def test_intervals_of_per_image_figures_are_those_of_a_mean(rows: int) -> None:
    targets_NK, probs_NK = draw(7, rows=rows)
    decided_NK = metrics.decide(probs_NK)
    card = decision_scores(targets_NK, decided_NK, LabelSet(tuple("abcdefg")))
    for name, beta in (("samples_f1", 1.0), ("samples_f2", 2.0)):
        value_N = metrics.per_image_fbeta(targets_NK, decided_NK, beta)
        wide = 1.96 * value_N.std() / np.sqrt(rows)
        assert card.intervals is not None
        low, high = getattr(card.intervals, name)
        assert (high - low) / 2 == pytest.approx(wide, rel=0.15)
        assert (high + low) / 2 == pytest.approx(value_N.mean(), abs=0.3 * wide)


def test_a_card_names_labels_and_leaves_out_those_without_positives() -> None:
    targets_NK, _ = draw(6, classes=3)
    card = card_of()
    assert card.without_positives == ("b",)
    assert card.per_class_f1["b"] is None
    assert card.support == {"a": int(targets_NK[:, 0].sum()), "b": 0, "c": int(targets_NK[:, 2].sum())}
    assert card.intervals is not None
    low, high = card.intervals.macro_f1
    assert low is not None
    assert high is not None
    assert card.macro_f1 is not None
    assert low < card.macro_f1 < high
    bare = card_of(resamples=0)
    assert bare.intervals is None
    assert replace(bare, intervals=card.intervals, at_half=card.at_half) == card


def test_the_json_form_has_its_keys_in_their_order_and_reads_back_equal() -> None:
    content = card_of().to_json()
    assert list(content) == [
        "rows",
        "micro_f1",
        "macro_f1",
        "samples_f1",
        "samples_f2",
        "per_class_f1",
        "intervals",
        "map",
        "per_class_ap",
        "ranking_loss",
        "coverage_error",
        "calibration_error",
        "support",
        "without_positives",
        "at_half",
    ]
    figures = ["micro_f1", "macro_f1", "samples_f1", "samples_f2", "per_class_f1"]
    assert list(content["intervals"]) == [*figures, "map"]
    assert list(content["at_half"]) == [*figures, "intervals"]
    assert list(content["at_half"]["intervals"]) == figures
    data = json.dumps(content, allow_nan=False).encode()
    field = JsonField.parse(data, "card.json", PredictionsError, "Restore it.")
    assert ScoreCard.from_json(field, LABELS.names) == card_of()


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("macro_f1", 1.5, r"card\.json: macro_f1 must be a finite number in \[0, 1\]\. Got: 1\.5"),
        ("macro_f1", "0.5", r"card\.json: macro_f1 must be a finite number"),
        ("rows", 2.5, r"card\.json: rows must be a whole number"),
        ("support", {"a": 1, "c": 0, "b": 0}, r"card\.json: support must hold the 3 expected names"),
        ("without_positives", ["x"], r"card\.json: without_positives must hold names of labels"),
        ("intervals", {"macro_f1": [0.4]}, r"card\.json: intervals\.macro_f1 must be two numbers"),
    ],
)
def test_a_damaged_card_is_refused_by_field(key: str, value: object, match: str) -> None:
    data = json.dumps({**card_of().to_json(), key: value}).encode()
    with pytest.raises(PredictionsError, match=match):
        ScoreCard.from_json(JsonField.parse(data, "card.json", PredictionsError, "Restore it."), LABELS.names)
