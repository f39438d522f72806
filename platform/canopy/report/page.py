"""The report: one self-contained HTML page from ``summary.json``, training histories and sweep trials.

The page makes no network requests and runs no script. Its figures are SVG that the template draws from the
geometry in :mod:`canopy.report.plots`. ``platform/docs/summary.md`` describes the summary.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from canopy.report import plots, score_tables, sweep_plots
from canopy.report.axes import Axis, finite_values, log_axis, score_axis
from canopy.report.focal_plot import focal_plot
from canopy.report.text_filters import FILTERS

if TYPE_CHECKING:
    from canopy.report.attention_maps import AttentionFigure

METRICS = {"macro_f1": "macro-F1", "micro_f1": "micro-F1", "map": "mAP"}
"""Main figures: key in ``summary.json`` -> title."""
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class AugmentationExamples:
    """Examples of one augmentation.

    Args:
        variants: names of the variants that use it.
        description: the augmentation in words.
        jpeg: chips before and after it, as JPEG.
    """

    variants: tuple[str, ...]
    description: str
    jpeg: bytes


def render_report(
    summary: Mapping[str, Any],
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    trials: Sequence[Mapping[str, Any]],
    contact_sheet_png: bytes | None,
    augmentations: Sequence[AugmentationExamples] = (),
    attention: Sequence[AttentionFigure] = (),
    importance: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    surfaces: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """The whole page as HTML.

    Args:
        summary: content of ``summary.json``; optional parts may be null or missing.
        histories: variant -> one record per epoch with ``epoch``, ``train_loss``, ``val_map``, ...
        trials: content of the sweep's ``trials.json``.
        contact_sheet_png: example chips, see :func:`canopy.report.image_grid.image_grid`; None to omit
            them.
        augmentations: one per distinct augmentation.
        attention: one per variant with CBAM.
        importance: content of the sweep's ``importance.json``; None without one.
        surfaces: content of the sweep's ``surface.json``; None without one.

    Returns:
        An HTML document of less than a megabyte, images not counted. All texts are escaped.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({function.__name__: function for function in FILTERS})
    view = _view(_completed(summary), histories, trials)
    view["augmentations"] = [
        {
            "variants": one.variants,
            "description": one.description,
            "picture": base64.b64encode(one.jpeg).decode(),
        }
        for one in augmentations
    ]
    view["attention"] = [
        {
            "variant": one.variant,
            "lines": one.lines,
            "flat": one.flat,
            "picture": base64.b64encode(one.png).decode(),
        }
        for one in attention
    ]
    view["studies"] = sweep_plots.study_views(summary.get("sweep"), trials, importance or {}, surfaces or {})
    view["chips"] = base64.b64encode(contact_sheet_png).decode() if contact_sheet_png else None
    return environment.get_template("page.html.j2").render(view)


def _completed(summary: Mapping[str, Any]) -> dict[str, Any]:
    """``summary`` with null for every optional part that is missing."""
    ensemble = {"estimated": None, "versus_best_member": None, **summary["ensemble"]}
    fields = ("workers", "epochs", "best_epoch", "images_per_s", "backbone", "cbam", "loss")
    variants = {name: {**dict.fromkeys(fields), **variant} for name, variant in summary["variants"].items()}
    return {"sweep": None, "ceiling": None, **summary, "ensemble": ensemble, "variants": variants}


def _view(
    summary: Mapping[str, Any],
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    trials: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The variables of the template."""
    variants = summary["variants"]
    best_epochs = {name: variant["best_epoch"] for name, variant in variants.items()}
    # One color per variant on the whole page, also for members without a history.
    order = {
        name: histories.get(name, ()) for name in dict.fromkeys([*variants, *summary["members"], *histories])
    }
    titles = {
        "train_loss": "Training loss",
        "val_macro_f1": "Validation macro-F1",
        "val_map": "Validation mAP",
    }
    panels = [plots.curves(order, key, title, best_epochs) for key, title in titles.items()]
    return {
        "summary": summary,
        "finished": _finished(variants),
        "best": best_member(summary),
        "headline": _headline(summary),
        "members": _members(summary, list(order)),
        **_figures(summary),
        "labels": _labels(summary),
        "unscored": [n for n, f1 in summary["ensemble"]["per_class_f1"].items() if f1 is None],
        "weights": plots.stacked_bars({name: summary["ensemble"]["weights"].get(name) for name in order}),
        "timeline": plots.timeline({name: variants.get(name, {}) for name in order}),
        "panels": [panel for panel in panels if panel],
        "colors": {name: color for color, name in enumerate(order)},
        "palette": plots.COLORS,
        "sweep": focal_plot(trials),
        "trials": [trial for trial in sorted(trials, key=_by_score) if "gamma" in trial],
        "rows": plots.stacked_bars({part: summary["data"]["rows"].get(part) for part in PARTS}),
        "tail": _tail(summary["data"]["labels"]),
        "stages": plots.stacked_bars({k: v for k, v in summary["seconds"].items() if k != "total"}),
        "total_s": summary["seconds"].get("total"),
    }


def best_member(summary: Mapping[str, Any]) -> str:
    """The best single member: the one that the summary names, else the one with the highest macro-F1."""
    versus = summary["ensemble"].get("versus_best_member")
    members: Mapping[str, Mapping[str, Any]] = summary["members"]
    if versus and versus["name"] in members:
        return str(versus["name"])
    return min(members, key=lambda name: _by_score(members[name], "macro_f1"))


def _by_score(scores: Mapping[str, Any], metric: str = "score") -> float:
    """Sort key: best score first, missing scores last."""
    return -(finite_values([scores.get(metric)]) or [-1.0])[0]


def _finished(variants: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Date and time (UTC) at which the last variant ended; None where unknown."""
    ends = finite_values(variant.get("end") for variant in variants.values())
    return f"{datetime.fromtimestamp(max(ends), UTC):%d %B %Y, %H:%M} UTC" if ends else None


def _scored(summary: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(role, name, scores) of every model on the test split: ensemble, members by macro-F1, ceiling."""
    members, best = summary["members"], best_member(summary)
    order = sorted(members, key=lambda name: (_by_score(members[name], "macro_f1"), name))
    rows = [("ensemble", "Ensemble", summary["ensemble"])]
    rows += [("best" if name == best else "member", name, members[name]) for name in order]
    if summary["ceiling"]:
        rows.append(("ceiling", "Best reachable", summary["ceiling"]))
    return rows


def _metric_axis(rows: Sequence[tuple[str, str, Mapping[str, Any]]], metric: str) -> Axis:
    """The common axis of all strips of one metric, so that they can be compared."""
    bounds = [v for _, _, scores in rows for v in (scores.get("intervals") or {}).get(metric) or ()]
    return score_axis([*bounds, *(scores.get(metric) for _, _, scores in rows)])


def _headline(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One card per metric: the ensemble, the best member and the ceiling on one strip."""
    rows = _scored(summary)
    cards = []
    for metric, title in METRICS.items():
        axis = _metric_axis(rows, metric)
        shown = {role: (name, scores) for role, name, scores in rows if role != "member"}
        marks = [plots.mark(axis, role, name, scores, metric) for role, (name, scores) in shown.items()]
        scores = {role: shown[role][1].get(metric) if role in shown else None for role in ("best", "ceiling")}
        cards.append(
            {
                "title": title,
                "value": summary["ensemble"].get(metric),
                "interval": (summary["ensemble"].get("intervals") or {}).get(metric),
                "estimated": (summary["ensemble"].get("estimated") or {}).get(metric),
                "marks": [m for m in marks if m],
                "ends": (axis.low, axis.high),
                **scores,
            }
        )
    return cards


def _members(summary: Mapping[str, Any], order: Sequence[str]) -> list[dict[str, Any]]:
    """One row per member, the ensemble first and the ceiling last."""
    rows = _scored(summary)
    axes = {metric: _metric_axis(rows, metric) for metric in METRICS}
    return [
        {
            "role": role,
            "name": name,
            "color": order.index(name) if role in {"best", "member"} else None,
            "weight": summary["ensemble"]["weights"].get(name) if role in {"best", "member"} else None,
            "variant": summary["variants"].get(name, {}) if role in {"best", "member"} else {},
            "cells": [
                {
                    "title": title,
                    "value": scores.get(metric),
                    "interval": (scores.get("intervals") or {}).get(metric),
                    "mark": plots.mark(axes[metric], role, name, scores, metric),
                }
                for metric, title in METRICS.items()
            ],
        }
        for role, name, scores in rows
    ]


def _figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of all figures of every model, and of its F1 by label."""
    scored = _scored(summary)
    models = [row for row in scored if row[0] != "ceiling"]
    names = [name for name, _ in _most_frequent_first(summary["data"]["labels"])]
    return {
        "decided": list(score_tables.DECIDED.values()),
        "ranked": [title for title, _ in score_tables.RANKED.values()],
        "figure_rows": score_tables.score_rows(scored),
        "models": [name for _, name, _ in models],
        "by_label": score_tables.f1_by_label(models, names),
    }


def _labels(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per label, most frequent first."""
    labels, ensemble = summary["data"]["labels"], summary["ensemble"]
    best = summary["members"][best_member(summary)]["per_class_f1"]
    at_half = (ensemble.get("at_half") or {}).get("per_class_f1") or {}
    ceiling = (summary["ceiling"] or {}).get("per_class_f1") or {}
    axis = log_axis(counts["all"] for counts in labels.values())
    return [
        {
            "name": name,
            "counts": counts,
            "size": axis.at(counts["all"]) if counts["all"] else 0,
            "ensemble": ensemble["per_class_f1"].get(name),
            "at_half": at_half.get(name),
            "best": best.get(name),
            "ceiling": ceiling.get(name),
            "threshold": ensemble["thresholds"].get(name),
        }
        for name, counts in _most_frequent_first(labels)
    ]


def _most_frequent_first(labels: Mapping[str, Mapping[str, int]]) -> list[tuple[str, Mapping[str, int]]]:
    return sorted(labels.items(), key=lambda item: (-item[1]["all"], item[0]))


def _tail(labels: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The long tail: one column per label on a logarithmic axis, most frequent first."""
    axis = log_axis(counts["all"] for counts in labels.values())
    order = _most_frequent_first(labels)
    width = 100 / len(order)
    columns = [
        {
            "name": name,
            "start": round(n * width, 3),
            "size": round(width, 3),
            **{part: axis.at(counts[part]) if counts[part] else 0 for part in ("all", "test")},
            "text": f"{counts['all']:,} in all, {counts['test']:,} in the test split",
        }
        for n, (name, counts) in enumerate(order)
    ]
    counts = [item[1]["all"] for item in order if item[1]["all"]]
    return {"axis": axis, "columns": columns, "ratio": max(counts) / min(counts) if counts else None}
