"""Gains of rows with their intervals, and the Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jobs.benchmarks.ablation.records import Line
from jobs.benchmarks.ablation.rows import ROWS, WITHOUT, Row
from scipy import stats

from canopy.metrics import Floats
from canopy.metrics.bootstrap import Interval

NOT_RESOLVED = "not resolved"
FIGURE_TEXTS = {
    "macro_f1": "macro-F1 at 0.5",
    "micro_f1": "micro-F1 at 0.5",
    "macro_f1_tuned": "macro-F1 at tuned thresholds",
    "micro_f1_tuned": "micro-F1 at tuned thresholds",
    "map": "mAP",
}
"""Measured figures: name in the file of figures → text in the tables."""
TITLES = {
    "generated": "Generated chips",
    "planet32": "Planet, 32 px",
    "cpu": "two CPU cores",
    "gpu": "GPU",
    "tiny": "a trial",
}
THRESHOLD_ROWS = {"grid", "exact", "shrunk"}
"""Rows that change only the thresholds: their mAP equals the baseline's."""


def gain(
    values_SF: Floats, against_SF: Floats, resampled_SFB: Floats, against_SFB: Floats, names: Sequence[str]
) -> dict[str, Any]:
    """Paired differences of F figures over S seeds, and their standard errors from the test rows alone.

    Args:
        values_SF: figures of a row.
        against_SF: figures of the row to compare with, at the same seeds.
        resampled_SFB: figures of the row on B bootstrap resamples of the test rows.
        against_SFB: figures of the other row on the same resamples.
        names: names of the figures.

    Returns:
        By figure: ``differences`` (one per seed), ``seed_errors`` (their bootstrap standard errors) and
        ``row_error`` (the bootstrap standard error of their mean, with the same resamples for all seeds).
    """
    differences_SF = values_SF - against_SF
    drawn_SFB = resampled_SFB - against_SFB
    seed_errors_SF = np.nanstd(drawn_SFB, axis=2, ddof=1)
    row_error_F = np.nanstd(drawn_SFB.mean(axis=0), axis=1, ddof=1)
    return {
        name: {
            "differences": differences_SF[:, f].round(5).tolist(),
            "seed_errors": seed_errors_SF[:, f].round(5).tolist(),
            "row_error": round(float(row_error_F[f]), 5),
        }
        for f, name in enumerate(names)
    }


def gain_interval(differences: Sequence[float], row_error: float, level: float = 0.95) -> Interval:
    """Mean of paired differences, with an interval that covers other seeds and other test rows.

    The variance is the sum of s²/S, of the mean over S seeds with S - 1 degrees of freedom, and of the
    bootstrap variance over test rows, taken as known. The quantile is Student's at the degrees of freedom of
    the sum (Satterthwaite 1946; Welch 1947): close to the normal quantile if the rows dominate, 4.3 if three
    seeds do. The interaction of seed and rows is part of both variances, so the interval is slightly too
    wide. With one seed, the interval is infinite.

    Args:
        differences: one difference per seed.
        row_error: bootstrap standard error of their mean over the test rows.
        level: confidence level, 0 to 1.
    """
    mean, seeds = float(np.mean(differences)), len(differences)
    if seeds < 2:
        return Interval(mean, float("-inf"), float("inf"))
    by_seed, by_row = float(np.var(differences, ddof=1)) / seeds, row_error**2
    total = by_seed + by_row
    freedom = np.inf if by_seed == 0 else (seeds - 1) * (total / by_seed) ** 2
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * total**0.5
    return Interval(mean, mean - half, mean + half)


def verdict(interval: Interval) -> str:
    """Return ``gains``, ``costs``, or ``not resolved`` if the interval contains zero."""
    if interval.low > 0:
        return "gains"
    return "costs" if interval.high < 0 else NOT_RESOLVED


def gain_of(line: Line, figure: str) -> Interval:
    """The interval of one figure of a ``gain`` line."""
    found = line["figures"][figure]
    return gain_interval(found["differences"], found["row_error"])


def is_winner(line: Line | None) -> bool:
    """Whether macro-F1 has a gain at 0.5 or at tuned thresholds."""
    return line is not None and any(
        verdict(gain_of(line, figure)) == "gains" for figure in ("macro_f1", "macro_f1_tuned")
    )


def markdown(
    setting: Line, baseline_runs: Sequence[Line], gains: dict[str, Line], failed: Sequence[Line]
) -> str:
    """The section of one data set: sizes, baseline, table, failed trainings, command.

    Args:
        setting: the newest ``setting`` line.
        baseline_runs: the baseline's ``run`` lines, one per seed.
        gains: ``gain`` line by row.
        failed: ``failed`` lines without a later success.
    """
    head = (
        "| Technique | Effort | Plan: macro-F1 | Macro-F1 at 0.5 | Macro-F1, tuned thresholds "
        "| Plan: micro-F1 | Micro-F1 at 0.5 | mAP | Time per epoch | Verdict on macro-F1 |"
    )
    rows = [table_row(row, gains[name], setting) for name, row in ROWS.items() if name in gains]
    baseline = f"| {ROWS['baseline'].title} | – | – | 0 | 0 | – | 0 | 0 | ×1 | – |"
    parts = [
        f"### {TITLES[setting['data']]}, {TITLES[setting['scale']]}",
        sizes(setting) + " " + baseline_figures(baseline_runs),
        "\n".join([head, "|---" * 10 + "|", baseline, *rows]),
    ]
    if failed:
        failures = [f"- {line['row']}, seed {line['seed']}: {line['error']}" for line in failed]
        parts.append("\n".join(["Trainings that failed:", "", *failures]))
    parts.append(f"```sh\n{run_command(setting['data'], setting['scale'])}\n```")
    return "\n\n".join(parts) + "\n"


def run_command(data: str, scale: str) -> str:
    """The command line that produces the figures of a data set at a scale."""
    options = "" if scale == "cpu" else f" --scale {scale}"
    return f"python jobs/benchmarks/ablation run --data {data}{options}"


def sizes(setting: Line) -> str:
    """A sentence about the data, the networks and their budget."""
    n, rare = setting["rows"], sorted(setting["test_positives"].items(), key=lambda pair: pair[1])[:3]
    backbones = ", ".join(
        f"{role} {name} ({counted(setting['epochs'][role], 'epoch')}, rate {setting['rates'][role]:g})"
        for role, name in setting["backbones"].items()
    )
    scarce = ", ".join(f"{name} {count}" for name, count in rare)
    return (
        f"{n['train']:,} chips to learn from, {n['val']:,} to choose epochs, rates and thresholds by, "
        f"{n['test']:,} to report on (positives of the rarest labels there: {scarce}); input "
        f"{setting['input']} px; {backbones}."
    )


def baseline_figures(runs: Sequence[Line]) -> str:
    """A sentence with the baseline's figures: mean and standard deviation over its seeds."""
    texts = []
    for figure, text in FIGURE_TEXTS.items():
        values = np.array([line["figures"][figure] for line in runs])
        deviation = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
        texts.append(f"{text} {values.mean():.3f}{deviation}")
    seeds = counted(len(runs), "seed")
    return f"The baseline itself, mean ± standard deviation over {seeds}: {', '.join(texts)}."


def table_row(row: Row, line: Line, setting: Line) -> str:
    """One line of the table, with gains in percentage points."""
    shown = {f: gain_of(line, f) for f in ("macro_f1", "macro_f1_tuned", "micro_f1", "map")}
    cells = [
        row.title + seeds_note(line),
        row.effort or "–",
        row.plan_macro or "–",
        points(shown["macro_f1"]),
        "–" if row.name == "shrunk" else points(shown["macro_f1_tuned"]),
        row.plan_micro or "–",
        points(shown["micro_f1"]),
        points(shown["map"]) if row.name not in THRESHOLD_ROWS else "–",
        cost_note(row, line, setting),
        verdict_text(row, shown["macro_f1"], shown["macro_f1_tuned"]),
    ]
    return f"| {' | '.join(cells)} |"


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 seed``, ``2 seeds``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def seeds_note(line: Line) -> str:
    """A note on the number of seeds if there are fewer than three, else ""."""
    return "" if len(line["seeds"]) >= 3 else f" ({counted(len(line['seeds']), 'seed')})"


def cost_note(row: Row, line: Line, setting: Line) -> str:
    """The ratio of time per epoch to the baseline, and the number of epochs if it differs."""
    if line["cost"] is None:
        return "–"
    epochs, usual = setting["epochs"][row.role], setting["epochs"]["resnet"]
    return f"×{line['cost']:.2f}" + ("" if epochs == usual else f", {epochs} epochs instead of {usual}")


def verdict_text(row: Row, plain: Interval, tuned: Interval) -> str:
    """The verdicts at 0.5 and at tuned thresholds, or one if they agree."""
    at_half, at_tuned = verdict(plain), verdict(tuned)
    if row.name in THRESHOLD_ROWS:
        return at_half
    if row.name.startswith(WITHOUT):  # a cost of leaving a technique out is a gain of the technique
        words = {"gains": "better without", "costs": "worse without", NOT_RESOLVED: NOT_RESOLVED}
        at_half, at_tuned = words[at_half], words[at_tuned]
    return at_half if at_half == at_tuned else f"{at_half} at 0.5, {at_tuned} when tuned"


def points(interval: Interval) -> str:
    """An interval in percentage points: ``+1.2 [−0.3, +2.7]``."""
    if not np.isfinite(interval.low):
        return f"{signed(interval.value)} [one seed]"
    return f"{signed(interval.value)} [{signed(interval.low)}, {signed(interval.high)}]"


def signed(value: float) -> str:
    """A value in percentage points with its sign and one decimal."""
    rounded = round(100 * value, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"
