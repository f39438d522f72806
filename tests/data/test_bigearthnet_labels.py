"""The two nomenclatures against what the authors publish of them."""

from __future__ import annotations

from canopy.data.bigearthnet_labels import LABELS_19, LABELS_43, SUMMARY, nomenclature, summarized


def test_the_nineteen_summarize_thirty_two_of_the_forty_three() -> None:
    assert (len(LABELS_43), len(LABELS_19)) == (43, 19)
    kept = [label for label, summary in SUMMARY.items() if summary is not None]
    assert len(kept) == 32
    assert {SUMMARY[label] for label in kept} == set(LABELS_19)
    assert (nomenclature(19), nomenclature(43)) == (LABELS_19, LABELS_43)


def test_a_label_of_both_keeps_its_name() -> None:
    both = set(LABELS_43) & set(LABELS_19)
    assert len(both) == 9
    assert all(SUMMARY[label] == label for label in both)


def test_labels_are_summarized_in_official_order() -> None:
    assert summarized(("Sea and ocean", "Olive groves", "Estuaries", "Vineyards")) == (
        "Permanent crops",
        "Marine waters",
    )
    assert summarized(("Airports", "Bare rock")) == ()
    assert summarized(("Airports", "Pastures")) == ("Pastures",)
