"""The report: one self-contained HTML page, made from ``summary.json`` and what training wrote down.

The page asks nothing of the network and runs no script; its figures are SVG drawn by the template from the
geometry in :mod:`canopy.report.plots`. The form of the summary is described in ``platform/docs/summary.md``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from canopy.config.describe import describe_loss
from canopy.report import plots, score_tables

if TYPE_CHECKING:
    from canopy.report.attention_maps import Look

METRICS = {"macro_f1": "macro-F1", "micro_f1": "micro-F1", "map": "mAP"}
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Seen:
    """What some variants saw in training: their augmentation in words, and as a JPEG of examples."""

    variants: tuple[str, ...]
    words: str
    jpeg: bytes


def render_report(
    summary: Mapping[str, Any],
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    trials: Sequence[Mapping[str, Any]],
    contact_sheet_png: bytes | None,
    seen: Sequence[Seen] = (),
    looks: Sequence[Look] = (),
) -> str:
    """The whole page as HTML.

    Args:
        summary: the content of ``summary.json``; what may be null there may be null here.
        histories: variant -> one mapping per epoch with ``epoch``, ``train_loss``, ``val_map``, ...
        trials: the sweep's trials, each with ``gamma``, ``alpha``, ``score``, ``epochs``, ``stopped_early``.
        contact_sheet_png: chips to show, see :func:`canopy.report.plots.contact_sheet`; None for none.
        seen: one for each distinct augmentation.
        looks: one for each variant with CBAM that has something to show.

    Returns:
        An HTML document of well under a megabyte, not counting the chips. Every text in it is escaped.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (score, signed, interval, narrow, known, breakable, loss_in_words, plots.duration):
        environment.filters[function.__name__] = function
    view = _view(_completed(summary), histories, trials)
    view["seen"] = [
        {"variants": s.variants, "words": s.words, "picture": base64.b64encode(s.jpeg).decode()} for s in seen
    ]
    view["looks"] = [
        {
            "variant": one.variant,
            "lines": one.lines,
            "flat": one.flat,
            "picture": base64.b64encode(one.png).decode(),
        }
        for one in looks
    ]
    view["chips"] = base64.b64encode(contact_sheet_png).decode() if contact_sheet_png else None
    return environment.get_template("page.html.j2").render(view)


def _completed(summary: Mapping[str, Any]) -> dict[str, Any]:
    """``summary`` with null for every optional part that is not there at all."""
    ensemble = {"estimated": None, "versus_best_member": None, **summary["ensemble"]}
    fields = ("workers", "epochs", "best_epoch", "images_per_s", "backbone", "cbam", "loss")
    variants = {name: {**dict.fromkeys(fields), **variant} for name, variant in summary["variants"].items()}
    return {"sweep": None, "ceiling": None, **summary, "ensemble": ensemble, "variants": variants}


def _view(
    summary: Mapping[str, Any],
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    trials: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Everything that the template reads."""
    variants = summary["variants"]
    kept = {name: variant["best_epoch"] for name, variant in variants.items()}
    # One colour per variant on the whole page, also for members that came without a history.
    order = {
        name: histories.get(name, ()) for name in dict.fromkeys([*variants, *summary["members"], *histories])
    }
    titles = {
        "train_loss": "Training loss",
        "val_macro_f1": "Validation macro-F1",
        "val_map": "Validation mAP",
    }
    panels = [plots.curves(order, key, title, kept) for key, title in titles.items()]
    return {
        "summary": summary,
        "finished": _finished(variants),
        "best": best_member(summary),
        "headline": _headline(summary),
        "members": _members(summary, list(order)),
        **_figures(summary),
        "labels": _labels(summary),
        "unscored": [n for n, f1 in summary["ensemble"]["per_class_f1"].items() if f1 is None],
        "weights": plots.shares({name: summary["ensemble"]["weights"].get(name) for name in order}),
        "timeline": plots.timeline({name: variants.get(name, {}) for name in order}),
        "panels": [panel for panel in panels if panel],
        "colors": {name: color for color, name in enumerate(order)},
        "palette": plots.COLORS,
        "sweep": plots.sweep(trials),
        "trials": sorted(trials, key=_by_score),
        "rows": plots.shares({part: summary["data"]["rows"].get(part) for part in PARTS}),
        "tail": _tail(summary["data"]["labels"]),
        "stages": plots.shares({k: v for k, v in summary["seconds"].items() if k != "total"}),
        "total_s": summary["seconds"].get("total"),
    }


def score(value: Any) -> str:
    """A score in [0, 1] with three digits; a dash where it is not known."""
    return f"{float(value):.3f}" if plots.finite([value]) else "–"


def signed(value: float) -> str:
    """A difference of scores with its sign, a real minus."""
    return f"{value:+.3f}".replace("-", "−")


def interval(bounds: Sequence[float] | None) -> str:
    """Two scores as an interval; empty where there is none."""
    return f"{bounds[0]:.3f} – {bounds[1]:.3f}" if bounds and len(plots.finite(bounds)) == 2 else ""


def narrow(bounds: Sequence[float] | None) -> str:
    """As :func:`interval`, for narrow columns: ``.709–.743``."""
    return interval(bounds).replace(" ", "").replace("0.", ".")


def loss_in_words(loss: Any) -> str:
    """A loss as :func:`canopy.config.describe.describe_loss` has it; takes the config's section or a plain name."""
    return describe_loss(loss) if isinstance(loss, Mapping) else str(known(loss))


def known(value: Any) -> Any:
    """``value``, or a dash where it is not known."""
    return "–" if value is None else value


def breakable(name: str) -> Markup:
    """A name, escaped, that may be broken after its hyphens, underscores, dots and slashes."""
    return Markup("<wbr>").join(re.split(r"(?<=[-_./])", name))


def best_member(summary: Mapping[str, Any]) -> str:
    """The single member that the ensemble is held against: as the summary names it, else by macro-F1."""
    versus = summary["ensemble"].get("versus_best_member")
    members: Mapping[str, Mapping[str, Any]] = summary["members"]
    if versus and versus["name"] in members:
        return str(versus["name"])
    return min(members, key=lambda name: _by_score(members[name], "macro_f1"))


def _by_score(scores: Mapping[str, Any], metric: str = "score") -> float:
    """Sorts the best first and what has no score last."""
    return -(plots.finite([scores.get(metric)]) or [-1.0])[0]


def _finished(variants: Mapping[str, Mapping[str, Any]]) -> str | None:
    """When the last variant ended, as a UTC date and time."""
    ends = plots.finite(variant.get("end") for variant in variants.values())
    return f"{datetime.fromtimestamp(max(ends), UTC):%d %B %Y, %H:%M} UTC" if ends else None


def _scored(summary: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(role, name, scores) of everything scored on the test split: members by macro-F1, ensemble, ceiling."""
    members, best = summary["members"], best_member(summary)
    order = sorted(members, key=lambda name: (_by_score(members[name], "macro_f1"), name))
    rows = [("ensemble", "Ensemble", summary["ensemble"])]
    rows += [("best" if name == best else "member", name, members[name]) for name in order]
    if summary["ceiling"]:
        rows.append(("ceiling", "Best reachable", summary["ceiling"]))
    return rows


def _metric_axis(rows: Sequence[tuple[str, str, Mapping[str, Any]]], metric: str) -> plots.Axis:
    """One axis per metric, so that every strip of it on the page can be compared."""
    bounds = [v for _, _, scores in rows for v in (scores.get("intervals") or {}).get(metric) or ()]
    return plots.score_axis([*bounds, *(scores.get(metric) for _, _, scores in rows)])


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
            "colour": order.index(name) if role in {"best", "member"} else None,
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
    """The tables of every figure, and of every label's F1, of every model."""
    scored = _scored(summary)
    models = [row for row in scored if row[0] != "ceiling"]
    names = [name for name, _ in _most_frequent_first(summary["data"]["labels"])]
    return {
        "decided": list(score_tables.DECIDED.values()),
        "ranked": [title for title, _ in score_tables.RANKED.values()],
        "figure_rows": score_tables.every_figure(scored),
        "models": [name for _, name, _ in models],
        "by_label": score_tables.f1_by_label(models, names),
    }


def _labels(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per label, the most frequent first."""
    labels, ensemble = summary["data"]["labels"], summary["ensemble"]
    best = summary["members"][best_member(summary)]["per_class_f1"]
    at_half = (ensemble.get("at_half") or {}).get("per_class_f1") or {}
    ceiling = (summary["ceiling"] or {}).get("per_class_f1") or {}
    axis = plots.log_axis(counts["all"] for counts in labels.values())
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
    """The long tail: one column per label on a logarithmic axis, the most frequent first."""
    axis = plots.log_axis(counts["all"] for counts in labels.values())
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
