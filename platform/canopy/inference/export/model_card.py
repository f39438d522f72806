"""The model card: what a model predicts, how good it is, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import canopy
from canopy.bands import BandLayout
from canopy.config import VariantConfig
from canopy.config.describe import describe_model
from canopy.ensemble.model import Ensemble
from canopy.ensemble.scores import EnsembleScores
from canopy.errors import printable

TAGS = ("canopy", "multi-label", "remote-sensing", "aerial-imagery")


def model_card(
    ensemble: Ensemble,
    variants: Mapping[str, VariantConfig],
    folds: int,
    image_size: int,
    layout: BandLayout | None = None,
) -> str:
    """The card as Markdown, with the hub's metadata at its top.

    Args:
        ensemble: the ensemble with its scores.
        variants: member -> variant.
        folds: networks per member.
        image_size: height and width of decoded images, pixels.
        layout: the bands of an image; None for RGB.
    """
    parts = [
        _front_matter(ensemble),
        "# Multi-label classifier of aerial chips\n",
        f"{cell(ensemble.summary)}\n" if ensemble.summary else "",
        f"Input: {_images(layout)}, resized to {image_size} by {image_size} pixels. Output: a probability "
        f"and a decision for each of {len(ensemble.labels)} labels.\n",
        "## Use\n",
        '```python\nimport canopy\n\nmodel = canopy.load("FOLDER")\n'
        f'prediction = model.predict(["chip.{"jpg" if layout is None else "tif"}"])\n'
        "prediction.to_pandas()\n```\n",
        *_scores(ensemble),
        "## Labels\n",
        _labels(ensemble),
        "## Members\n",
        _members(ensemble, variants, folds),
        "## Limits\n",
        _limits(ensemble),
    ]
    return "\n".join(part for part in parts if part)


def _images(layout: BandLayout | None) -> str:
    if layout is None:
        return "RGB images"
    return f"images of {len(layout.bands)} bands ({cell(', '.join(layout.names))})"


def _front_matter(ensemble: Ensemble) -> str:
    lines = ["---", "library_name: canopy", "pipeline_tag: image-classification", "tags:"]
    lines += [f"- {tag}" for tag in TAGS]
    measured = ensemble.measured
    if measured is not None and measured.macro_f1 is not None and measured.micro_f1 is not None:
        lines += ["model-index:", "- name: canopy-ensemble", "  results:", "  - task:"]
        lines += ["      type: image-classification", "    dataset:", "      name: test split of the run"]
        lines += ["      type: own", "    metrics:"]
        for kind, value in (("f1_macro", measured.macro_f1), ("f1_micro", measured.micro_f1)):
            lines += [f"    - type: {kind}", f"      value: {value:.4f}"]
    return "\n".join([*lines, "---", ""])


def _scores(ensemble: Ensemble) -> list[str]:
    parts = []
    for scores, title in (
        (ensemble.measured, "Measured once on the test split, which no choice has seen"),
        (ensemble.estimated, "Cross-fitted estimate on the tuning data"),
    ):
        if scores is not None:
            parts.append(f"{title}:\n\n{_score_table(scores)}")
    return ["## Scores\n", *parts] if parts else []


def _score_table(scores: EnsembleScores) -> str:
    rows = ["| figure | value | 95% interval |", "|---|---|---|"]
    for name, title in (("macro_f1", "macro-F1"), ("micro_f1", "micro-F1"), ("map", "mAP")):
        value = getattr(scores, name)
        bounds = getattr(scores.intervals, name) if scores.intervals is not None else None
        low, high = bounds or (None, None)
        interval = f"{low:.4f} to {high:.4f}" if low is not None and high is not None else ""
        rows.append(f"| {title} | {'' if value is None else f'{value:.4f}'} | {interval} |")
    return "\n".join(rows) + "\n"


def _labels(ensemble: Ensemble) -> str:
    scores = ensemble.measured or ensemble.estimated
    positives = {} if ensemble.fitted_on is None else ensemble.fitted_on.positives
    rows = ["| label | threshold | F1 | positives in the tuning data |", "|---|---|---|---|"]
    for name, threshold in zip(ensemble.labels.names, ensemble.thresholds, strict=True):
        f1 = scores.per_class_f1.get(name) if scores is not None else None
        shown = "never predicted" if threshold > 1 else f"{threshold:.4f}"
        rows.append(
            f"| {cell(name)} | {shown} | {'' if f1 is None else f'{f1:.3f}'} | {positives.get(name, '')} |"
        )
    groups = [f"Exactly one of: {', '.join(map(cell, group))}." for group in ensemble.exclusive]
    return "\n".join([*rows, "", *groups, ""]) if groups else "\n".join([*rows, ""])


def _members(ensemble: Ensemble, variants: Mapping[str, VariantConfig], folds: int) -> str:
    rows = ["| member | network | networks | test-time augmentation | weight |", "|---|---|---|---|---|"]
    weights = ensemble.weights
    for name in ensemble.members:
        variant = variants[name]
        network = cell(describe_model(variant.model))
        rows.append(f"| {cell(name)} | {network} | {folds} | {variant.tta} | {weights[name]:.3f} |")
    return "\n".join([*rows, ""])


def _limits(ensemble: Ensemble) -> str:
    lines: Sequence[str] = [
        "- The scores hold for images like those of the run: the same sensor, season, region and size.",
        "- Thresholds were tuned for the frequencies of labels in the tuning data.",
        *(f"- {cell(note)}" for note in ensemble.notes),
        f"- Written by Canopy {canopy.__version__}.",
    ]
    return "\n".join([*lines, ""])


def cell(text: str) -> str:
    """Text for Markdown and a table's cell: one line, without characters that mean something there."""
    plain = printable(text).replace("\\", "\\\\")
    for character in "|`*_<>[]":
        plain = plain.replace(character, "\\" + character)
    return plain
