"""The file of figures, and the selection of its lines that are valid for the current rows and settings.

Each line is a JSON object of one ``kind``: ``setting`` (data, sizes), ``lr`` (a tested learning rate),
``run`` (a row at a seed), ``gain`` (a row compared with another over all common seeds) or ``failed``.
Lines are only added. The ``fingerprint`` of a line covers everything that it depends on; the last line of a
fingerprint is valid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.benchmarks.ablation.rows import ROWS, Role, Row, Setting

from canopy.config import AugmentConfig, VariantConfig, fingerprint
from canopy.errors import InputError

VERSION = 1
"""Version of the measurement. It is increased when the same config would give different figures."""
RATE_SEED = 100
"""Seed for the choice of learning rates; no row uses it."""

Line = dict[str, Any]


@dataclass
class Records:
    """The lines of one file of figures.

    Args:
        path: the file, which need not exist.
        lines: its lines as JSON objects.
    """

    path: Path
    lines: list[Line]

    @classmethod
    def open(cls, path: Path) -> Records:
        """Read a file. An incomplete last line, left by a killed run, is removed from the file.

        Raises:
            InputError: when a complete line is not JSON.
        """
        text = path.read_text() if path.exists() else ""
        complete = text[: text.rfind("\n") + 1]
        if complete != text:
            path.write_text(complete)
        lines = []
        for number, line in enumerate(complete.splitlines(), 1):
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise InputError(
                    f"{path}, line {number}", "must be JSON", str(error), "Delete the line."
                ) from None
        return cls(path, lines)

    def add(self, line: Line) -> None:
        """Append one line and write it to the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as stream:
            stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self.lines.append(line)

    def find(self, kind: str, fingerprint: str) -> Line | None:
        """The newest line of this kind and fingerprint, or None."""
        return next(
            (n for n in reversed(self.lines) if n["kind"] == kind and n.get("fingerprint") == fingerprint),
            None,
        )

    def newest(self, kind: str) -> Line | None:
        """The newest line of this kind, or None."""
        return next((n for n in reversed(self.lines) if n["kind"] == kind), None)


@dataclass(frozen=True)
class Job:
    """One training.

    Args:
        kind: kind of the line that it produces, ``lr`` or ``run``.
        row: row of the ablation.
        variant: complete config.
        fingerprint: fingerprint of the line.
    """

    kind: str
    row: Row
    variant: VariantConfig
    fingerprint: str


@dataclass(frozen=True)
class CurrentRecords:
    """The lines of a file that are valid for the current rows and settings; outdated lines are ignored.

    Args:
        records: lines of the file.
        setting: current setting.
        known: fingerprints computed so far, by row name and seed; each one takes a complete config.
    """

    records: Records
    setting: Setting
    known: dict[tuple[str, int], str] = field(default_factory=dict)

    def rate_job(self, role: Role, rate: float) -> Job:
        """The training of the baseline recipe on a backbone at one learning rate."""
        row = Row(f"rate-{role}", "", role=role)
        variant = self.setting.variant(row, RATE_SEED, rate)
        return Job("lr", row, variant, identity(variant, self.setting))

    def rate(self, role: Role) -> float | None:
        """The learning rate with the highest validation mAP; None until all have been tested."""
        jobs = [self.rate_job(role, rate) for rate in self.setting.rates]
        lines = [self.records.find("lr", job.fingerprint) for job in jobs]
        if None in lines:
            return None
        best = max((line for line in lines if line is not None), key=lambda line: line["val_map"])
        return float(best["lr"])

    def job(self, row: Row, seed: int) -> Job:
        """The training of a row at a seed; its learning rate must be known."""
        rate = self.rate(row.role)
        assert rate is not None, f"no learning rate for {row.role}"
        variant = self.setting.variant(row, seed, rate)
        return Job("run", row, variant, identity(variant, self.setting))

    def key(self, row: Row, seed: int) -> str:
        """The fingerprint of a row at a seed."""
        if (row.name, seed) not in self.known:
            parts = [self.key(ROWS[name], seed) for name in row.of]
            own = fingerprint(VERSION, row.name, parts)[:16] if parts else self.job(row, seed).fingerprint
            self.known[row.name, seed] = own
        return self.known[row.name, seed]

    def run(self, row: Row, seed: int) -> Line | None:
        """The ``run`` line of a row at a seed, or None."""
        return self.records.find("run", self.key(row, seed))

    def seeds(self, row: Row) -> list[int]:
        """The seeds at which a row has figures."""
        known = sorted({line["seed"] for line in self.records.lines if line["kind"] == "run"})
        return [seed for seed in known if self.run(row, seed) is not None]

    def against(self, row: Row, seed: int) -> Row:
        """The row to compare with: the one named by the row, or its best member by validation mAP."""
        if row.against != "best member":
            return ROWS[row.against]
        lines = {name: self.run(ROWS[name], seed) for name in row.of}
        return ROWS[max(row.of, key=lambda name: line["val_map"] if (line := lines[name]) else -1.0)]

    def gain_key(self, row: Row, seeds: Sequence[int]) -> str:
        """The fingerprint of a gain over ``seeds``."""
        others = [self.key(self.against(row, seed), seed) for seed in seeds]
        return fingerprint(VERSION, "gain", [self.key(row, seed) for seed in seeds], others)[:16]

    def gain(self, row: Row) -> Line | None:
        """The ``gain`` line of a row over the most seeds, or None."""
        found = [line for line in self.records.lines if line["kind"] == "gain" and line["row"] == row.name]
        fits = [line for line in found if line["fingerprint"] == self.gain_key(row, line["seeds"])]
        return max(fits, key=lambda line: len(line["seeds"]), default=None)

    def failures(self) -> list[Line]:
        """The ``failed`` lines of trainings that have not succeeded since."""
        failed = {line["fingerprint"]: line for line in self.records.lines if line["kind"] == "failed"}
        return [line for key, line in failed.items() if self.records.find("run", key) is None]


def identity(variant: VariantConfig, setting: Setting) -> str:
    """A hash, 16 hex digits, of everything that the figures of a training depend on.

    Fields with default values are left out, so that a new option that is off by default keeps old figures
    valid.
    """
    data = setting.data.model_dump(mode="json", exclude_defaults=True, exclude={"root"})
    return fingerprint(VERSION, data, essentials(variant))[:16]


def essentials(variant: VariantConfig) -> dict[str, Any]:
    """The fields of a variant that differ from the defaults, and always the most important ones."""
    kept: dict[str, Any] = variant.model_dump(
        mode="json", exclude_defaults=True, exclude={"scale": True, "name": True, "augment": {"place"}}
    )
    former = {new: old for old, new in AugmentConfig.RENAMED.items()}  # files of figures use the former names
    if "augment" in kept:
        kept["augment"] = {former.get(name, name): value for name, value in kept["augment"].items()}
    kept.setdefault("model", {})["backbone"] = variant.model.backbone
    kept.setdefault("loss", {})["name"] = variant.loss.name
    kept.setdefault("optim", {}).update(lr=variant.optim.lr, epochs=variant.optim.epochs)
    return {**kept, "seed": variant.seed}
