"""Synthetic summaries of runs with any number of members and labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

PLANET = [
    "primary",
    "clear",
    "agriculture",
    "road",
    "water",
    "partly_cloudy",
    "cultivation",
    "habitation",
    "haze",
    "cloudy",
    "bare_ground",
    "selective_logging",
    "artisinal_mine",
    "blooming",
    "slash_burn",
    "conventional_mine",
    "blow_down",
]
Run = dict[str, Any]


def _scores(level: float, labels: list[str]) -> Run:
    """Scores around ``level`` that fall along the tail."""
    per_class = {
        name: round(min(0.99, max(0.05, level + 0.22 - 0.026 * k)), 4) for k, name in enumerate(labels)
    }
    macro = sum(per_class.values()) / len(per_class)
    decided = {
        "macro_f1": macro,
        "samples_f1": min(0.98, macro + 0.16),
        "samples_f2": min(0.99, macro + 0.18),
    }
    found = {"micro_f1": min(0.99, macro + 0.17), **decided, "map": min(0.99, macro + 0.04)}
    half = {"micro_f1": macro + 0.15, "macro_f1": macro - 0.09, "samples_f1": macro + 0.14}
    half |= {"samples_f2": macro + 0.12}
    return {
        **found,
        "ranking_loss": 0.02 * macro,
        "coverage_error": 5.5 - macro,
        "calibration_error": 0.03 * macro,
        "per_class_f1": per_class,
        "intervals": _around(found),
        "at_half": {
            **half,
            "per_class_f1": {name: round(0.9 * value, 4) for name, value in per_class.items()},
            "intervals": _around(half),
        },
    }


def _around(found: dict[str, float]) -> dict[str, list[float]]:
    return {metric: [value - 0.018, value + 0.016] for metric, value in found.items()}


def make_run(members: list[str], labels: list[str], *, swept: bool = True, ceiling: bool = True) -> Run:
    """summary, histories and trials of a run with these members and labels."""
    trials = [
        {"gamma": 1.6, "alpha": 0.42, "score": 0.681, "epochs": 4, "stopped_early": False},
        {"gamma": 0.0, "alpha": 0.50, "score": 0.662, "epochs": 4, "stopped_early": False},
        {"gamma": 3.4, "alpha": 0.30, "score": 0.618, "epochs": 1, "stopped_early": True},
        {"gamma": 2.2, "alpha": 0.61, "score": 0.673, "epochs": 4, "stopped_early": False},
        {"gamma": 0.9, "alpha": 0.72, "score": 0.641, "epochs": 2, "stopped_early": True},
        {"gamma": 2.8, "alpha": 0.52, "score": 0.633, "epochs": 1, "stopped_early": True},
    ]
    best = {"gamma": 1.6, "alpha": 0.42, "score": 0.681}
    seconds = {"prepare": 21.4, "sweep": 64.0, "train": 151.2, "ensemble": 6.3, "report": 1.1, "total": 244.0}
    if not swept:
        seconds.pop("sweep")
    found = {name: _scores(0.70 - 0.015 * k, labels) for k, name in enumerate(members)}
    reachable = _scores(0.83, labels)
    summary: Run = {
        "schema": 1,
        "config_hash": "3f9a" * 16,
        "preset": "demo",
        "canopy_version": "0.1.0",
        "data": _data(labels),
        "sweep": {"reference": members[-1], "best": best, "trials": 6, "stopped_early": 3} if swept else None,
        "variants": {name: _variant(k) for k, name in enumerate(members)},
        "members": found,
        "ensemble": _ensemble(members, labels, found[members[0]]["macro_f1"]),
        "ceiling": {key: reachable[key] for key in ("micro_f1", "macro_f1", "map", "per_class_f1")},
        "seconds": seconds,
    }
    if not ceiling:
        summary["ceiling"] = None
    histories = {name: _history(k) for k, name in enumerate(members)}
    return {"summary": summary, "histories": histories, "trials": trials if swept else []}


def _data(labels: list[str]) -> Run:
    """Rows and a long tail of labels, 25 positives in the test split at least."""
    counts = {name: max(25, int(1116 * 0.72**k)) for k, name in enumerate(labels)}
    return {
        "rows": {"train": 3900, "val": 900, "test": 1200},
        "labels": {
            name: {"train": 3 * n, "val": n // 2, "test": n, "all": 4 * n + n // 2}
            for name, n in counts.items()
        },
        "bad_images": 0,
    }


def _variant(k: int) -> Run:
    return {
        "start": 1_790_000_000.0 + 9 * k,
        "end": 1_790_000_094.0 + 17 * k,
        "workers": 1 + k % 2,
        "epochs": 6,
        "best_epoch": 5 - k % 2,
        "images_per_s": 812.4 - 10 * k,
        "backbone": ["resnet10t", "efficientnet_lite0", "resnet18"][k % 3],
        "cbam": ["none", "none", "last"][k % 3],
        "loss": ["bce", "focal"][k % 2],
    }


def _ensemble(members: list[str], labels: list[str], best: float) -> Run:
    scores = _scores(0.715, labels)
    weights = dict.fromkeys(members, 0.0) | dict(zip(members, (0.5, 0.3, 0.2), strict=False))
    return {
        **scores,
        "weights": weights if len(members) > 2 else dict.fromkeys(members, 1 / len(members)),
        "thresholds": {name: round(0.48 - 0.018 * (k % 17), 3) for k, name in enumerate(labels)},
        "method": "Greedy selection with replacement, exact thresholds per label, in 5 folds",
        "estimated": {"macro_f1": scores["macro_f1"] - 0.008, "micro_f1": scores["micro_f1"] - 0.002},
        "versus_best_member": {"name": members[0], "macro_f1": [0.003, scores["macro_f1"] - best, 0.027]},
    }


def _history(k: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 0.34 * math.exp(-0.28 * epoch) + 0.08 + 0.01 * k,
            "val_map": 0.72 - 0.5 * math.exp(-0.55 * epoch) - 0.02 * k,
            "val_macro_f1": 0.68 - 0.45 * math.exp(-0.5 * epoch) - 0.02 * k + 0.012 * math.sin(3 * epoch + k),
            "images_per_s": 800.0,
            "seconds": 14.0,
        }
        for epoch in range(6)
    ]


@pytest.fixture
def run_of() -> Callable[..., Run]:
    """:func:`make_run`, for tests that want another size."""
    return make_run


@pytest.fixture
def demo() -> Run:
    """The run of a demo: three members, Planet's labels, a sweep, a known ceiling."""
    return make_run(["resnet-bce", "efficientnet-focal", "resnet-cbam-focal"], PLANET)
