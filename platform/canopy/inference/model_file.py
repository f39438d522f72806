"""``model.json``: the files of a finished model, the code and the format that made them.

Written by the ensemble stage into the run directory. Loading checks every file that it reads against it, so
that a damaged or exchanged file is named. Run directories of earlier versions have none; there the checksums
of the stages' marks stand in for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

import canopy
from canopy.bands import BandLayout
from canopy.config import DataConfig, Experiment, SensorConfig
from canopy.errors import RunDirError
from canopy.runtime.stage import Stage
from canopy.storage import files
from canopy.storage.checksum import Checksum, checksum, sha256_of
from canopy.storage.json_fields import JsonField
from canopy.storage.run_dir import MARK, RunDir
from canopy.train.trained_model import CONFIG, LABELS, WEIGHTS
from canopy.train.training_run import training_run_directory

NAME = "model.json"
KIND, VERSION = "canopy-model", 1
ENSEMBLE_FILE = f"{Stage.ENSEMBLE}/ensemble.json"
FOUND = re.compile(rf"{KIND}/(\d+)")
RESTORE = "Restore the file, or run jobs/pipeline.py with the run directory again."


@dataclass(frozen=True)
class ModelFile:
    """The content of ``model.json``.

    Args:
        members: names of the variants whose networks are there.
        folds: networks per variant.
        image_size: height and width of the chips, pixels.
        sensor: conversion of files with many bands or 16 bits.
        sha256: hexadecimal digest of each file, by its path relative to the directory.
        canopy: version of Canopy that wrote the file; None where it was derived from marks.
        bands: the bands of a chip (:meth:`canopy.bands.BandLayout.to_json`); None for RGB.
    """

    members: tuple[str, ...]
    folds: int
    image_size: int
    sensor: Mapping[str, Any]
    sha256: Mapping[str, str]
    canopy: str | None
    bands: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, run_dir: RunDir, config: Experiment) -> ModelFile:
        """Describe the files of a run whose ensemble is fitted.

        Raises:
            FileNotFoundError: when one of them is missing.
            StorageError: when the store cannot be read.
        """
        members = tuple(variant.name for variant in config.trained_variants)
        layout = BandLayout.of(config.data)
        paths = [ENSEMBLE_FILE, *model_paths(members, config.folds)]
        return cls(
            members,
            config.folds,
            config.data.image_size,
            config.data.sensor.model_dump(mode="json"),
            {path: sha256_of(run_dir.path(*path.split("/"))) for path in paths},
            canopy.__version__,
            None if layout is None else layout.to_json(),
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        bands = {} if self.bands is None else {"bands": dict(self.bands)}
        return {
            "format": f"{KIND}/{VERSION}",
            "canopy": self.canopy,
            "members": list(self.members),
            "folds": self.folds,
            "preprocessing": {"image_size": self.image_size, "sensor": dict(self.sensor), **bands},
            "files": {path: {"sha256": digest} for path, digest in self.sha256.items()},
        }

    @classmethod
    def read(cls, path: str) -> ModelFile:
        """Read and check what :meth:`to_json` gave.

        Raises:
            FileNotFoundError: when there is no such file.
            RunDirError: when it is damaged, or of another format.
        """
        content = JsonField.parse(files.read_bytes(path), files.shown(path), RunDirError, RESTORE)
        check_format(content)
        preprocessing, listed = content.get("preprocessing"), content.get("files")
        digests = {name: listed.get(name).get("sha256") for name in listed.mapping()}
        for digest in digests.values():
            if not re.fullmatch("[0-9a-f]{64}", digest.text()):
                digest.refuse("must be 64 hexadecimal digits")
        sensor = preprocessing.get("sensor").mapping()
        return cls(
            content.get("members").texts(),
            content.get("folds").integer(1),
            preprocessing.get("image_size").integer(1),
            sensor,
            {name: digest.text() for name, digest in digests.items()},
            content.get("canopy").text(),
            None if (bands := preprocessing.optional("bands")) is None else bands.mapping(),
        )

    def write(self, path: str) -> None:
        """Write the JSON form.

        Raises:
            StorageError: when the store cannot be written.
        """
        files.write_json(path, self.to_json())

    def check_files(self, root: str, members: Sequence[str]) -> None:
        """Refuse a file of the ensemble or of ``members`` that is missing or differs from the listed one.

        Args:
            root: directory or URI of the model.
            members: names of the variants to check.

        Raises:
            RunDirError: naming the first such file.
            StorageError: when the store cannot be read.
        """
        for name in (ENSEMBLE_FILE, *model_paths(members, self.folds)):
            path = files.join(root, *name.split("/"))
            thing, need = files.shown(path), f"must be the file that {NAME} lists"
            if name not in self.sha256:
                raise RunDirError(thing, need, f"{NAME} does not list it", RESTORE)
            try:
                found = sha256_of(path)
            except FileNotFoundError:
                raise RunDirError(thing, need, "no such file", RESTORE) from None
            if found != self.sha256[name]:
                got = f"another file (SHA-256 {found[:12]}…, listed is {self.sha256[name][:12]}…)"
                raise RunDirError(thing, need, got, RESTORE)

    def check_config(self, path: str, data: DataConfig, folds: int) -> None:
        """Refuse a config whose preprocessing or folds differ from those that the model was made with.

        Raises:
            RunDirError: naming the first difference.
        """
        try:
            stored = SensorConfig.model_validate(dict(self.sensor))
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise RunDirError(NAME, "must hold a valid preprocessing.sensor", problem, RESTORE) from None
        layout = BandLayout.of(data)
        pairs: list[tuple[str, object, object]] = [
            ("data.image_size", self.image_size, data.image_size),
            ("data.sensor", stored, data.sensor),
            ("data.bands", self.bands, None if layout is None else layout.to_json()),
            ("folds", self.folds, folds),
        ]
        for name, expected, got in pairs:
            if expected != got:
                thing, need = f"{files.shown(path)}: {name}", f"must be as in {NAME}, {expected}"
                remedy = "Finish the pipeline with this config, or restore the former one."
                raise RunDirError(thing, need, str(got), remedy)


def check_format(content: JsonField) -> None:
    """Refuse a ``model.json`` of another format than this version reads.

    Raises:
        RunDirError: with the remedy for an older or a newer format.
    """
    found = FOUND.fullmatch(content.get("format").text())
    if found is None:
        content.get("format").refuse(f"must be {KIND}/{VERSION}")
    version, maker = int(found[1]), content.optional("canopy")
    if version == VERSION:
        return
    by = "" if maker is None else f", made by Canopy {maker.text()}"
    remedy = (
        f"Update Canopy (this is {canopy.__version__})."
        if version > VERSION
        else "Run jobs/pipeline.py with the run directory again."
    )
    need = f"must be of the format {KIND}/{VERSION}"
    raise RunDirError(content.file, need, f"{found[0]}{by}", remedy)


def model_paths(members: Sequence[str], folds: int) -> Iterator[str]:
    """Paths of the files of the members' networks, relative to the run directory."""
    for name in members:
        for fold in range(folds):
            yield from (f"{training_run_directory(name, fold)}/{file}" for file in (WEIGHTS, CONFIG, LABELS))


def write_model_file(run_dir: RunDir, config: Experiment) -> None:
    """Write ``model.json`` of a run whose ensemble is fitted.

    Raises:
        StorageError: when the store fails.
    """
    ModelFile.of(run_dir, config).write(run_dir.path(NAME))


def check_model(run_dir: RunDir, config: Experiment, members: Sequence[str]) -> None:
    """Refuse a run whose files are not those of one finished model.

    Args:
        run_dir: the run directory.
        config: its config.
        members: variants whose networks will be loaded.

    Raises:
        RunDirError: naming the first file that is damaged, exchanged or of another format.
        StorageError: when the store cannot be read.
    """
    try:
        model = ModelFile.read(run_dir.path(NAME))
    except (FileNotFoundError, NotADirectoryError):
        check_marks(run_dir, config.folds, members)
        return
    model.check_config(run_dir.path("config.yaml"), config.data, config.folds)
    model.check_files(run_dir.root, members)


def check_marks(run_dir: RunDir, folds: int, members: Sequence[str]) -> None:
    """:func:`check_model` for a run directory of an earlier version: by the checksums in its marks.

    Raises:
        RunDirError: when the ensemble stage has not finished, or naming the first file that was changed.
    """
    mark = run_dir.read_mark(Stage.ENSEMBLE)
    if mark is None:
        got = f"neither {NAME} nor {Stage.ENSEMBLE}/{MARK}: the stage {Stage.ENSEMBLE} has not finished"
        thing = f"Run directory {files.shown(run_dir.root)}"
        raise RunDirError(thing, "must hold a finished ensemble", got, "Run jobs/pipeline.py with it first.")
    expected: dict[str, Checksum] = {}
    if "ensemble.json" in mark.outputs:
        expected[ENSEMBLE_FILE] = mark.outputs["ensemble.json"]
    for path in model_paths(members, folds):
        directory, _, name = path.rpartition("/")
        training = run_dir.read_mark(directory)
        if training is not None and name in training.outputs:
            expected[path] = training.outputs[name]
    for path, known in expected.items():
        place = run_dir.path(*path.split("/"))
        try:
            found = checksum(place)
        except FileNotFoundError:
            continue  # loading names it
        if found != known:
            need = f"must be the file that its stage wrote (checksum in {MARK})"
            raise RunDirError(files.shown(place), need, "another file", RESTORE)
