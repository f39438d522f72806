"""Predictions in npz files: an archive of NumPy arrays, read without unpickling.

Shapes, types and sizes are checked in the arrays' headers before any array is allocated.
"""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from canopy.errors import PredictionsError
from canopy.labels import LabelSet
from canopy.predictions.predictions import Predictions
from canopy.predictions.size_limit import refuse_oversize

ID_NAMES = ("id", "ids", "image_name", "image")
LABEL_NAMES = ("labels", "classes")
TARGET_NAMES = ("targets", "y")
MEMBER_PREFIX = "p_"
REMEDY = "Write the file again with numpy.savez."


@dataclass(frozen=True)
class NpyHeader:
    """Shape and type of an array in the archive, and the bytes of its header."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    length: int

    @property
    def bytes(self) -> int:
        """Bytes of the array's values."""
        return math.prod(self.shape) * self.dtype.itemsize


class NpzFile:
    """An open npz archive.

    Args:
        data: content of the file.

    Raises:
        PredictionsError: when it is no npz archive.
    """

    def __init__(self, data: bytes) -> None:
        if not zipfile.is_zipfile(io.BytesIO(data)):
            must = "must be an npz archive"
            raise PredictionsError("The file", must, "no zip archive", "Write it with numpy.savez.")
        self._archive = zipfile.ZipFile(io.BytesIO(data))
        self.names = [name.removesuffix(".npy") for name in self._archive.namelist()]

    def first(self, names: tuple[str, ...]) -> str | None:
        """The first of ``names`` that the archive holds."""
        return next((name for name in names if name in self.names), None)

    def members(self) -> list[str]:
        """Names of the members (``p_<member>`` arrays); one empty name where the file holds only one."""
        prefixed = [name for name in self.names if name.startswith(MEMBER_PREFIX)]
        return [name.removeprefix(MEMBER_PREFIX) for name in prefixed] or [""]

    def header(self, name: str) -> NpyHeader:
        """The header of an array.

        Raises:
            PredictionsError: when the array holds Python objects, or its size contradicts its header.
        """
        info = self._archive.getinfo(self._entry(name))
        with self._archive.open(info) as stream:
            version = npy_format.read_magic(stream)
            read = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
            if version not in read:
                raise PredictionsError(f"The array {name}", "must be of npy format 1 or 2", version, REMEDY)
            shape, _, dtype = read[version](stream)
            header = NpyHeader(shape, dtype, stream.tell())
        if dtype.hasobject:
            remedy = "Convert it to text or numbers first."
            raise PredictionsError(f"The array {name}", "must hold no Python objects", str(dtype), remedy)
        stored = info.file_size - header.length
        if header.bytes != stored:
            must = f"must hold the {header.bytes:,} bytes that its header declares"
            raise PredictionsError(f"The array {name}", must, f"{stored:,} bytes", REMEDY)
        return header

    def array(self, name: str) -> NDArray[Any]:
        """The values of an array whose header has been checked."""
        with self._archive.open(self._entry(name)) as stream:
            return np.asarray(npy_format.read_array(stream, allow_pickle=False))

    def _entry(self, name: str) -> str:
        return f"{name}.npy" if f"{name}.npy" in self._archive.NameToInfo else name


def read_npz(data: bytes, member: str) -> Predictions:
    """The predictions of a member, or of the only member where ``member`` is empty.

    Raises:
        PredictionsError: when an array is missing, damaged, too large or of the wrong shape or type.
    """
    file = NpzFile(data)
    ids = _required(file, "id", ID_NAMES)
    labels = _required(file, "labels", LABEL_NAMES)
    probs_names = (MEMBER_PREFIX + member, member) if member else ("probs",)
    probs = _required(file, probs_names[0], probs_names)
    logits = None if member else file.first(("logits",))
    targets = file.first(TARGET_NAMES)
    matrices = [(probs, "probability"), (logits, "logit"), (targets, "target")]
    _check_headers(file, ids, labels, [(name, kind) for name, kind in matrices if name is not None])
    return Predictions(
        ids=_ids_in(file, ids),
        probs_NK=file.array(probs),
        labels=LabelSet(tuple(_texts_in(file, labels).tolist())),
        logits_NK=None if logits is None else file.array(logits),
        targets_NK=None if targets is None else file.array(targets),
    )


def _required(file: NpzFile, what: str, names: tuple[str, ...]) -> str:
    found = file.first(names)
    if found is None:
        got, remedy = ", ".join(file.names) or "no array", "Name one member as file.npz#member."
        raise PredictionsError("The npz file", f"must hold {what}", got, remedy)
    return found


def _check_headers(file: NpzFile, ids: str, labels: str, matrices: list[tuple[str, str]]) -> None:
    """Refuse arrays of the wrong shape, or too large together."""
    headers = {name: file.header(name) for name in (ids, labels)}
    for name, header in headers.items():
        if len(header.shape) != 1:
            must = "must be a one-dimensional array"
            raise PredictionsError(f"The array {name}", must, header.shape, "Give one name per element.")
    expected = (headers[ids].shape[0], headers[labels].shape[0])
    total = sum(header.bytes for header in headers.values())
    for name, kind in matrices:
        header = file.header(name)
        if header.shape != expected:
            must, remedy = f"must be of shape {expected}", "Give one row per id and one column per label."
            raise PredictionsError(f"The array of {kind} values", must, header.shape, remedy)
        total += header.bytes
    refuse_oversize("The npz file", total)


def _ids_in(file: NpzFile, name: str) -> NDArray[np.str_]:
    """The ids as text; whole numbers are taken by their digits."""
    values = file.array(name)
    return values.astype(np.str_) if values.dtype.kind in "iu" else _texts_in(file, name)


def _texts_in(file: NpzFile, name: str) -> NDArray[np.str_]:
    values = file.array(name)
    if values.dtype.kind not in "US":
        remedy = "Give the names themselves."
        raise PredictionsError(f"The array {name}", "must hold text", str(values.dtype), remedy)
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
