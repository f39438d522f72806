"""Memory of batch inference over many images."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

from jobs.benchmarks.chip_data import chip_files, private_ray
from jobs.benchmarks.inference.untrained_run import untrained_run
from jobs.benchmarks.measurement import Report, private_bytes

from canopy.inference.job import PredictRequest, predict_images
from canopy.runtime.console import Console

SAMPLE_S = 1.0


def memory(
    images: int = 100_000, backbones: tuple[str, ...] = ("test_resnet",), out: Path | None = None
) -> None:
    """The whole command over ``images`` chips of 64 pixels, decoded to 32: private memory over time.

    The driver's memory may not grow with the number of images: its figure at a quarter of the time and at
    the end are compared.
    """
    report = Report(f"inference memory, {images:,} images", out)
    chips = sorted(set(chip_files(64, 2000)))
    with tempfile.TemporaryDirectory(prefix="cb") as folder, private_ray(1 << 30):
        place = Path(folder)
        run = untrained_run(place / "run", backbones, 32)
        (place / "images").mkdir()
        for n in range(images):
            os.link(chips[n % len(chips)], place / "images" / f"{n:07}.jpg")
        request = PredictRequest(run.root, str(place / "images"), str(place / "out"))
        with MemoryTrace() as trace:
            count = predict_images(replace(request, gpus_per_actor=0.0), Console())
        assert count == images
        driver = [row[0] / 1e6 for row in trace.rows]
        workers = [row[1] / 1e6 for row in trace.rows]
        quarter = len(driver) // 4
        report.add_value("seconds", round(len(driver) * SAMPLE_S))
        report.add_value("driver, MB: after a quarter of the time, at the end, peak",
                         [round(driver[quarter]), round(driver[-1]), round(max(driver))])  # fmt: skip
        report.add_value("largest other process, MB: after a quarter, at the end, peak",
                         [round(workers[quarter]), round(workers[-1]), round(max(workers))])  # fmt: skip
        report.add_ratio("driver's memory: end / quarter", [driver[-1] / driver[quarter]], "<= 1.1")
    report.show()


class MemoryTrace:
    """Samples private memory, once in ``SAMPLE_S`` seconds, while a block of code runs.

    Attributes:
        rows: bytes of this process and of its largest descendant, by sample.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[int, int]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> MemoryTrace:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_S):
            own_bytes, *others_bytes = private_bytes()
            self.rows.append((own_bytes, max(others_bytes, default=0)))
