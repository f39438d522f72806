"""The run directory: files of every stage, and a marker for each stage that is done.

::

    RUN_DIR/
      config.yaml            the exact config of the newest start
      data.json              the data set of the run
      lease.json             the pipeline that is running here
      prepare/               catalogue.parquet, chips.npy, validation.json, sees-*.png
      sweep/                 best.json, trials.json, trials/
      train/VARIANT/fold0/   weights.safetensors, config.json, labels.json, history.json, *.parquet,
                             progress.json, tensorboard/
      train/ray/             Ray Train's checkpoints
      ensemble/              ensemble.json, test.parquet, scores.json, per_class.csv, gap.json
      model.json             the files of the model, with their checksums and the version that made them
      report/                index.html, contact_sheet.png, attention-VARIANT.png
      summary.json           the figures, for people and scripts

The directory of a stage or a training (``prepare``, ``train/resnet/fold0``) is done when it holds the mark
``done.json``. The mark's fingerprint covers the config sections that were read and the fingerprints of the
inputs. The order of every rewrite is: :meth:`RunDir.withdraw` the mark, write the files,
:meth:`RunDir.finish`. The mark holds checksums of the outputs, so a changed file invalidates it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import ValidationError

from canopy.config import Experiment
from canopy.config.validation_errors import config_error
from canopy.errors import RunDirError, refuse_credentials
from canopy.storage import files
from canopy.storage.checksum import Checksum, checksum

logger = logging.getLogger(__name__)

LAYOUT = 1
"""Version of the files in a run directory: part of every fingerprint, raised when old files cannot serve."""
MARK = "done.json"
DATA = "data.json"
CONFIG = "config.yaml"


@dataclass(frozen=True)
class DoneMark:
    """The content of ``done.json``.

    Args:
        fingerprint: of the settings and the inputs.
        outputs: checksum of each output by its name in the directory; empty in marks of earlier versions.
        facts: other values, among them ``seconds``.
    """

    fingerprint: str
    outputs: Mapping[str, Checksum] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The form in ``done.json``."""
        outputs = {name: one.to_json() for name, one in self.outputs.items()}
        return {"fingerprint": self.fingerprint, **self.facts, **({"outputs": outputs} if outputs else {})}

    @classmethod
    def from_json(cls, value: Any) -> DoneMark:
        """The mark in ``done.json``.

        Raises:
            ValueError: when the value does not have the form of :meth:`to_json`.
        """
        if not isinstance(value, dict) or not isinstance(value.get("fingerprint"), str):
            raise ValueError("a mark must be an object with a fingerprint")
        outputs = value.get("outputs", {})
        if not isinstance(outputs, dict):
            raise ValueError("a mark's outputs must be an object")
        facts = {name: fact for name, fact in value.items() if name not in ("fingerprint", "outputs")}
        checksums = {name: Checksum.from_json(one) for name, one in outputs.items()}
        return cls(value["fingerprint"], checksums, facts)


@dataclass(frozen=True)
class DataRecord:
    """The content of ``data.json``: the data set that a run belongs to.

    Args:
        identity: hash of the images' names, labels, sizes and times of change.
        rows: number of images.
        root: directory or URI from which the run was made first.
        arrangement: hash of the splits, groups and order of labels that the source prescribes.
    """

    identity: str
    rows: int
    root: str
    arrangement: str = ""


@dataclass(frozen=True)
class RunDir:
    """The directory or URI of one run.

    Raises:
        InputError: when a URI holds credentials.
    """

    root: str

    def __post_init__(self) -> None:
        refuse_credentials("The run directory's address", self.root)

    def path(self, *parts: str) -> str:
        """A path inside the run."""
        return files.join(self.root, *parts)

    def done(self, directory: str, fingerprint: str) -> DoneMark | None:
        """The mark of ``directory``, if it is done for this fingerprint and its outputs are still the same.

        An unreadable mark counts as none. Marks of earlier versions have no checksums and are trusted.

        Args:
            directory: relative to the run directory.
            fingerprint: of the settings and the inputs.

        Raises:
            StorageError: when the object store refuses.
        """
        mark = self.read_mark(directory)
        if mark is None or mark.fingerprint != fingerprint:
            return None
        for name, expected in mark.outputs.items():
            path = self.path(directory, name)
            try:
                found = checksum(path)
            except FileNotFoundError:
                logger.warning("%s is missing; %s is done again", files.shown(path), directory)
                return None
            if found != expected:
                logger.warning("%s was changed since it was written; %s is done again", path, directory)
                return None
        return mark

    def read_mark(self, directory: str) -> DoneMark | None:
        """The mark of ``directory``, whatever its fingerprint; None where there is none or it is damaged.

        Raises:
            StorageError: when the object store refuses.
        """
        path = self.path(directory, MARK)
        try:
            return DoneMark.from_json(json.loads(files.read_bytes(path)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, RecursionError) as error:
            logger.warning("%s is damaged and counts as not done: %s", files.shown(path), error)
            return None

    def finish(self, directory: str, fingerprint: str, outputs: Iterable[str] = (), **facts: Any) -> DoneMark:
        """Mark ``directory`` as done, after its files are written.

        Args:
            directory: relative to the run directory.
            fingerprint: of the settings and the inputs.
            outputs: names in the directory of the files that later stages rely on.
            facts: other values to keep in the mark.

        Raises:
            FileNotFoundError: when an output is missing.
            StorageError: when the object store refuses, or the disk is full or fails.
        """
        checksums = {name: checksum(self.path(directory, name)) for name in outputs}
        mark = DoneMark(fingerprint, checksums, facts)
        files.write_json(self.path(directory, MARK), mark.to_json())
        return mark

    def withdraw(self, directory: str) -> None:
        """Remove the mark of ``directory``: must come before any of its files is replaced."""
        files.delete(self.path(directory, MARK))

    @property
    def claimed(self) -> bool:
        """Whether the run belongs to a data set."""
        return self.read_data() is not None

    def read_data(self) -> DataRecord | None:
        """The data set of the run; None where there is none yet or ``data.json`` is damaged."""
        path = self.path(DATA)
        try:
            value = json.loads(files.read_bytes(path))
            record = DataRecord(**{name: value[name] for name in DataRecord.__match_args__ if name in value})
            if not all(isinstance(part, str) for part in (record.identity, record.root, record.arrangement)):
                raise ValueError("identity, root and arrangement must be text")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, RecursionError) as error:
            logger.warning("%s is damaged and is written again: %s", files.shown(path), error)
            return None
        return record

    def check_claim(self, identity: str, rows: int, root: str) -> None:
        """Refuse a data set that differs from the run's, if the run has one.

        Raises:
            RunDirError: when the run was made from another data set.
        """
        known = self.read_data()
        if known is not None and known.identity != identity:
            raise RunDirError(
                f"Run directory {files.shown(self.root)}",
                f"must belong to one data set; it was made from {known.rows} rows of {known.root} "
                f"(identity {known.identity[:12]})",
                f"{rows} rows of {root} (identity {identity[:12]}): other images, or files changed since",
                "Choose another --run-dir, or delete this one.",
            )

    def claim(self, identity: str, rows: int, root: str, arrangement: str = "") -> None:
        """Record the data set of the run; the arguments are those of :class:`DataRecord`.

        Raises:
            RunDirError: when the run was made from another data set.
            InputError: when ``root`` holds credentials.
        """
        refuse_credentials("data.root", root)
        self.check_claim(identity, rows, root)
        known = self.read_data()
        rows, root = (rows, root) if known is None else (known.rows, known.root)
        record = {"identity": identity, "rows": rows, "root": root, "arrangement": arrangement}
        files.write_json(self.path(DATA), record)

    def store_config(self, config: Experiment) -> None:
        """Write the exact config in the form that ``--config`` reads."""
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        files.write_bytes(self.path(CONFIG), text.encode())

    def load_config(self) -> Experiment:
        """The config of the newest start.

        Raises:
            RunDirError: when ``config.yaml`` is missing or damaged.
        """
        path = self.path(CONFIG)
        try:
            return Experiment.model_validate(yaml.safe_load(files.read_bytes(path)))
        except (FileNotFoundError, NotADirectoryError):
            thing = f"Run directory {files.shown(self.root)}"
            raise RunDirError(
                thing, "must hold a config.yaml", "none", "Run jobs/pipeline.py first."
            ) from None
        except ValidationError as error:
            problem = config_error(files.shown(path), error)
            remedy = "Use the version of Canopy that made the run, or start again with --preset or --config."
            raise RunDirError(problem.thing, problem.constraint, problem.got, remedy) from None
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            remedy = "Restore it, or start the pipeline again with --preset or --config."
            raise RunDirError(files.shown(path), "must hold a valid config", error, remedy) from None


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Measure the block: its duration in seconds is under ``seconds`` after its end."""
    watch = {"seconds": 0.0}
    start = time.monotonic()
    yield watch
    watch["seconds"] = round(time.monotonic() - start, 2)
