"""The run directory: where every stage reads and writes, and how it knows what is already done.

::

    RUN_DIR/
      config.yaml            the exact config of the newest start
      data.json              which data set this run is of
      prepare/               catalogue.parquet, chips.npy, validation.json, sees-*.png
      sweep/                 best.json, trials.json, trials/
      train/VARIANT/fold0/   weights.safetensors, config.json, labels.json, history.json, *.parquet,
                             progress.json, tensorboard/
      train/ray/             Ray Train's checkpoints
      ensemble/              ensemble.json, test.parquet, scores.json, per_class.csv, gap.json
      report/                index.html, contact_sheet.png, attention-VARIANT.png
      summary.json           the figures, for people and scripts

A unit of work (``prepare``, ``train/resnet/fold0``) writes its files first and ``done.json`` last; the
fingerprint in it covers the config sections that the unit reads and the fingerprints of its inputs, so
it is redone exactly when one of these changes, and a killed unit leaves nothing half-true.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from canopy.config import Experiment
from canopy.errors import RunDirError
from canopy.storage import files

LAYOUT = 1
"""Version of the contracts in here: part of every fingerprint, raised when old files no longer serve."""


@dataclass(frozen=True)
class RunDir:
    """A directory or URI that one run lives in."""

    root: str

    def path(self, *parts: str) -> str:
        """A path inside the run."""
        return files.join(self.root, *parts)

    def done(self, unit: str, fingerprint: str) -> dict[str, Any] | None:
        """What ``unit`` said when it finished for the same inputs; None when it has to be (re)done."""
        marker = self.path(unit, "done.json")
        if not files.exists(marker):
            return None
        record: dict[str, Any] = files.read_json(marker)
        return record if record.get("fingerprint") == fingerprint else None

    def finish(self, unit: str, fingerprint: str, **facts: Any) -> dict[str, Any]:
        """Mark ``unit`` as done, after its files are written; ``facts`` are kept beside the fingerprint."""
        record = {"fingerprint": fingerprint, **facts}
        files.write_json(self.path(unit, "done.json"), record)
        return record

    def reopen(self, unit: str) -> None:
        """Take ``unit``'s mark away, before any file of it is replaced."""
        filesystem, marker = files.resolve(self.path(unit, "done.json"))
        if files.exists(self.path(unit, "done.json")):
            filesystem.delete_file(marker)

    @property
    def claimed(self) -> bool:
        """Whether the run is tied to a data set."""
        return files.exists(self.path("data.json"))

    def check_claim(self, identity: str, rows: int, root: str) -> None:
        """Refuse a data set that is not the one that the run is tied to, if it is.

        Raises:
            RunDirError: when the run was made from another one.
        """
        if not self.claimed:
            return
        known = files.read_json(self.path("data.json"))
        if known["identity"] != identity:
            raise RunDirError(
                f"Run directory {self.root}",
                f"must belong to one data set; it was made from {known['rows']} rows of {known['root']} "
                f"(identity {known['identity'][:12]})",
                f"{rows} rows of {root} (identity {identity[:12]})",
                "Choose another --run-dir, or delete this one.",
            )

    def claim(self, identity: str, rows: int, root: str, arrangement: str = "") -> None:
        """Tie the run to one data set, whose splits, groups and order of labels are its arrangement.

        Raises:
            RunDirError: when it was made from another one.
        """
        self.check_claim(identity, rows, root)
        record = {"identity": identity, "rows": rows, "root": root}
        if self.claimed:  # its root stays the one that it was made from
            record = files.read_json(self.path("data.json"))
        files.write_json(self.path("data.json"), {**record, "arrangement": arrangement})

    def store_config(self, config: Experiment) -> None:
        """Write the exact config, readable by ``--config``."""
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        files.write_bytes(self.path("config.yaml"), text.encode())

    def load_config(self) -> Experiment:
        """The config of the newest start.

        Raises:
            RunDirError: when this is no run directory.
        """
        if not files.exists(self.path("config.yaml")):
            problem = "must hold a config.yaml"
            raise RunDirError(f"Run directory {self.root}", problem, "none", "Run jobs/pipeline.py first.")
        return Experiment.model_validate(yaml.safe_load(files.read_bytes(self.path("config.yaml"))))


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds that the block took, under ``seconds`` once it has ended."""
    watch = {"seconds": 0.0}
    start = time.monotonic()
    yield watch
    watch["seconds"] = round(time.monotonic() - start, 2)
