"""The model card: Markdown with the hub's metadata; label names cannot break it."""

from __future__ import annotations

import dataclasses

import yaml
from tests.ensemble.worlds import FAST, world

from canopy.config import VariantConfig
from canopy.ensemble.fit import fit_ensemble
from canopy.inference.export.model_card import cell, model_card
from canopy.labels import LabelSet


def test_it_says_scores_labels_members_and_limits() -> None:
    fitted = fit_ensemble(world(300), FAST)
    ensemble = dataclasses.replace(fitted, measured=fitted.estimated, notes=("rare has few positives",))
    card = model_card(ensemble, {name: VariantConfig(name=name) for name in ensemble.members}, 2, 64)
    _, front, body = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["library_name"] == "canopy"
    metrics = metadata["model-index"][0]["results"][0]["metrics"]
    assert ensemble.measured is not None
    assert metrics[0]["value"] == round(ensemble.measured.macro_f1 or 0, 4)
    for label, threshold in zip(ensemble.labels.names, ensemble.thresholds, strict=True):
        assert f"| {label} | {threshold:.4f} |" in body
    for text in ("rare has few positives", "64 by 64 pixels", "resnet10t", "canopy.load", "95% interval"):
        assert text in body, text


def test_names_cannot_break_a_table_or_become_links() -> None:
    assert cell("a|b`c\nd<img>[x](y)") == "a\\|b\\`c\\\\nd\\<img\\>\\[x\\](y)"
    fitted = fit_ensemble(world(300), FAST)
    awkward = dataclasses.replace(fitted, labels=LabelSet(("a|b", "<b>", "c\n# d", "`e`")))
    card = model_card(awkward, {name: VariantConfig(name=name) for name in awkward.members}, 1, 64)
    assert "\n# d" not in card
    assert "| a\\|b |" in card


def test_an_ensemble_without_scores_has_a_card() -> None:
    bare = dataclasses.replace(fit_ensemble(world(200), FAST), estimated=None, measured=None, fitted_on=None)
    card = model_card(bare, {name: VariantConfig(name=name) for name in bare.members}, 1, 64)
    assert "## Scores" not in card
    assert "| rare |" in card
