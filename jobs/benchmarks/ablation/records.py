"""The file of figures, and which of its lines belong to the present rows and settings.

One JSON object a line, of a ``kind``: ``setting`` (data, sizes), ``lr`` (a learning rate tried), ``run`` (a
row at a seed), ``gain`` (a row against another over all seeds that both have), ``failed``. Lines are only
ever added; a ``fingerprint`` says what a line depends on, and of lines with one fingerprint the last counts.
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
"""Raised when the same config would give other figures."""
RATE_SEED = 100
"""Learning rates are chosen at a seed of their own."""

Line = dict[str, Any]


@dataclass
class Records:
    """The lines of one file, which grows as results come."""

    path: Path
    lines: list[Line]

    @classmethod
    def open(cls, path: Path) -> Records:
        """The file's lines, none when there is no file; a last line cut off by a kill is dropped from it.

        Raises:
            InputError: when another line is not JSON.
        """
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole)
        lines = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                lines.append(json.loads(line))
            except ValueError as error:
                raise InputError(f"{path}, line {number}", "must be JSON", str(error), "Delete it.") from None
        return cls(path, lines)

    def add(self, line: Line) -> None:
        """Append one line, at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as stream:
            stream.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self.lines.append(line)

    def find(self, kind: str, fingerprint: str) -> Line | None:
        """The newest line of this kind and fingerprint."""
        return next(
            (n for n in reversed(self.lines) if n["kind"] == kind and n.get("fingerprint") == fingerprint),
            None,
        )

    def newest(self, kind: str) -> Line | None:
        """The newest line of this kind."""
        return next((n for n in reversed(self.lines) if n["kind"] == kind), None)


@dataclass(frozen=True)
class Job:
    """One training to do."""

    kind: str
    row: Row
    variant: VariantConfig
    fingerprint: str


@dataclass(frozen=True)
class Current:
    """The lines of a file that belong to the present rows and settings; older ones are passed over."""

    records: Records
    setting: Setting
    known: dict[tuple[str, int], str] = field(default_factory=dict)
    """Keys that have been worked out: each asks for a whole config."""

    def rate_job(self, role: Role, rate: float) -> Job:
        """The baseline recipe on a backbone, at one learning rate."""
        row = Row(f"rate-{role}", "", role=role)
        variant = self.setting.variant(row, RATE_SEED, rate)
        return Job("lr", row, variant, identity(variant, self.setting))

    def rate(self, role: Role) -> float | None:
        """The rate with the highest validation mAP; None until all have been tried."""
        jobs = [self.rate_job(role, rate) for rate in self.setting.rates]
        lines = [self.records.find("lr", job.fingerprint) for job in jobs]
        if None in lines:
            return None
        best = max((line for line in lines if line is not None), key=lambda line: line["val_map"])
        return float(best["lr"])

    def job(self, row: Row, seed: int) -> Job:
        """The training of a row at a seed, rates known."""
        rate = self.rate(row.role)
        assert rate is not None, f"no learning rate for {row.role}"
        variant = self.setting.variant(row, seed, rate)
        return Job("run", row, variant, identity(variant, self.setting))

    def key(self, row: Row, seed: int) -> str:
        """What the figures of a row at a seed depend on."""
        if (row.name, seed) not in self.known:
            parts = [self.key(ROWS[name], seed) for name in row.of]
            own = fingerprint(VERSION, row.name, parts)[:16] if parts else self.job(row, seed).fingerprint
            self.known[row.name, seed] = own
        return self.known[row.name, seed]

    def run(self, row: Row, seed: int) -> Line | None:
        """The figures of a row at a seed."""
        return self.records.find("run", self.key(row, seed))

    def seeds(self, row: Row) -> list[int]:
        """At which seeds a row has figures."""
        known = sorted({line["seed"] for line in self.records.lines if line["kind"] == "run"})
        return [seed for seed in known if self.run(row, seed) is not None]

    def against(self, row: Row, seed: int) -> Row:
        """What a row is measured against: a row, or its own best member on the validation rows."""
        if row.against != "best member":
            return ROWS[row.against]
        lines = {name: self.run(ROWS[name], seed) for name in row.of}
        return ROWS[max(row.of, key=lambda name: line["val_map"] if (line := lines[name]) else -1.0)]

    def gain_key(self, row: Row, seeds: Sequence[int]) -> str:
        """What a gain over these seeds depends on."""
        others = [self.key(self.against(row, seed), seed) for seed in seeds]
        return fingerprint(VERSION, "gain", [self.key(row, seed) for seed in seeds], others)[:16]

    def gain(self, row: Row) -> Line | None:
        """The gain of a row over the most seeds."""
        found = [line for line in self.records.lines if line["kind"] == "gain" and line["row"] == row.name]
        fits = [line for line in found if line["fingerprint"] == self.gain_key(row, line["seeds"])]
        return max(fits, key=lambda line: len(line["seeds"]), default=None)

    def failures(self) -> list[Line]:
        """Trainings that failed and have not succeeded since."""
        failed = {line["fingerprint"]: line for line in self.records.lines if line["kind"] == "failed"}
        return [line for key, line in failed.items() if self.records.find("run", key) is None]


def identity(variant: VariantConfig, setting: Setting) -> str:
    """16 hex digits of everything that a run's figures depend on.

    Fields at their defaults do not enter, so that a new option, off by default, leaves old figures valid.
    """
    data = setting.data.model_dump(mode="json", exclude_defaults=True, exclude={"root"})
    return fingerprint(VERSION, data, essentials(variant))[:16]


def essentials(variant: VariantConfig) -> dict[str, Any]:
    """What a variant says beyond defaults, and always what a reader looks for first."""
    kept: dict[str, Any] = variant.model_dump(
        mode="json", exclude_defaults=True, exclude={"scale": True, "name": True, "augment": {"place"}}
    )
    former = {new: old for old, new in AugmentConfig.RENAMED.items()}  # figures are filed under these names
    if "augment" in kept:
        kept["augment"] = {former.get(name, name): value for name, value in kept["augment"].items()}
    kept.setdefault("model", {})["backbone"] = variant.model.backbone
    kept.setdefault("loss", {})["name"] = variant.loss.name
    kept.setdefault("optim", {}).update(lr=variant.optim.lr, epochs=variant.optim.epochs)
    return {**kept, "seed": variant.seed}
