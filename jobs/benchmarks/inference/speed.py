"""Speed of batch inference, compared with a bare torch loop and with one pass per member."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from jobs.benchmarks.chip_data import STORE_BYTES, chip_files, private_ray
from jobs.benchmarks.inference.bare_loop import SETTINGS, BareLoops
from jobs.benchmarks.inference.pipeline_rate import pipeline_reading
from jobs.benchmarks.inference.untrained_run import untrained_run
from jobs.benchmarks.measurement import Report, alternate

from canopy.inference.networks import Precision

BACKBONES = ("efficientnet_lite0", "resnet18", "mobilenetv3_large_100")
TRIALS = 3
"""Settings of the bare loop that are measured again after one short trial of each."""


def speed(
    repeats: int = 3,
    size: int = 256,
    images: int = 768,
    trial_images: int = 128,
    shard_rows: int = 64,
    backbones: tuple[str, ...] = BACKBONES,
    precision: Precision = "float32",
    out: Path | None = None,
) -> None:
    """Batch inference over several members and the best bare loop over the same ones.

    Both decode each image once and run all members on it. Ours also calibrates, combines, decides and writes
    Parquet. The bare loop's settings (processes, threads, batch, memory order) are each tried once on
    ``trial_images``; the best three are then measured in full, and the fastest of each repeat counts. Ours is
    measured without its start: after each actor has finished its first shard.
    """
    report = Report(f"inference speed, {size} px, {precision}, {' + '.join(backbones)}", out)
    paths = chip_files(size, images)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cb"))
        run = untrained_run(Path(folder), backbones, size).root
        loops = stack.enter_context(BareLoops(run, size))
        stack.enter_context(private_ray(STORE_BYTES))
        trials = {one: loops.rate(paths[:trial_images], one, precision)[0] for one in SETTINGS}
        best = sorted(trials, key=trials.__getitem__)[::-1][:TRIALS]
        for setting, rate in trials.items():
            report.add_value(f"trial of the bare loop, {setting}", f"{rate:.1f} images/s")
        ours: list[float] = []
        rivals: list[float] = []
        totals: list[float] = []
        their_totals: list[float] = []

        def pipeline() -> None:
            reading = pipeline_reading(run, paths, shard_rows, precision)
            ours.append(reading.steady_rate)
            totals.append(reading.total)

        def bare() -> None:
            found = [loops.rate(paths, one, precision) for one in best]
            rivals.append(max(rate for rate, _ in found))
            their_totals.append(found[0][1])

        alternate([pipeline, bare], repeats)
        report.add_value("images/s of ours", [round(rate, 1) for rate in ours])
        report.add_value("images/s of the best bare loop", [round(rate, 1) for rate in rivals])
        report.add_value("sum of our probabilities", totals)
        report.add_value("sum of the bare loop's probabilities", their_totals)
        ratios = [a / b for a, b in zip(ours, rivals, strict=True)]
        report.add_ratio("images/s: ours / best bare loop", ratios, ">= 0.9")
    report.show()


def passes(
    repeats: int = 3,
    size: int = 256,
    images: int = 768,
    shard_rows: int = 64,
    backbones: tuple[str, ...] = BACKBONES,
    precision: Precision = "float32",
    out: Path | None = None,
) -> None:
    """All members in one pass over the images, and one pass for each member.

    Both on the same running Ray, start of the actors included, which each pass pays.
    """
    report = Report(f"inference passes, {size} px, {precision}, {' + '.join(backbones)}", out)
    paths = chip_files(size, images)
    with tempfile.TemporaryDirectory(prefix="cb") as folder, private_ray(STORE_BYTES):
        run = untrained_run(Path(folder) / "all", backbones, size).root
        singles = [
            untrained_run(Path(folder) / f"only{n}", (backbone,), size).root
            for n, backbone in enumerate(backbones)
        ]
        together: list[float] = []
        apart: list[float] = []

        def one_pass() -> None:
            together.append(pipeline_reading(run, paths, shard_rows, precision).whole_s)

        def one_each() -> None:
            apart.append(sum(pipeline_reading(one, paths, shard_rows, precision).whole_s for one in singles))

        alternate([one_pass, one_each], repeats)
        report.add_value("seconds of one pass", [round(value, 1) for value in together])
        report.add_value(f"seconds of {len(backbones)} passes", [round(value, 1) for value in apart])
        ratios = [b / a for a, b in zip(together, apart, strict=True)]
        report.add_ratio("time: one pass per member / one pass", ratios, ">= 1.3")
    report.show()
