"""Npz archives are checked by their headers before an array is allocated."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from canopy.errors import PredictionsError
from canopy.predictions.npz_file import NpzFile, read_npz

IDS, LABELS = np.array(["a", "b"]), np.array(["x", "y", "z"])


def archive(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    out = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, fields)
    return out.getvalue()


def with_raw(name: str, content: bytes, **arrays: Any) -> bytes:
    """An archive with one entry of raw bytes."""
    out = io.BytesIO(archive(**arrays))
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr(f"{name}.npy", content)
    return out.getvalue()


def test_text_and_whole_numbers_are_ids_and_bytes_are_text() -> None:
    probs = np.full((2, 3), 0.5, np.float16)
    found = read_npz(archive(id=np.array([7, 8]), labels=LABELS.astype("S"), probs=probs), "")
    assert found.ids.tolist() == ["7", "8"]
    assert found.labels.names == ("x", "y", "z")
    assert found.probs_NK.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": np.arange(3)}, "The array labels must hold text. Got: int64"),
        ({"labels": LABELS[None]}, r"The array labels must be a one-dimensional array. Got: \(1, 3\)"),
        ({"id": np.array("a")}, r"The array id must be a one-dimensional array. Got: \(\)"),
        ({"id": np.array([0.5, 1.5])}, "The array id must hold text. Got: float64"),
        ({"id": IDS.astype(object)}, "The array id must hold no Python objects"),
        ({"probs": np.zeros((3, 2))}, r"of probability values must be of shape \(2, 3\). Got: \(3, 2\)"),
        ({"targets": np.zeros(2)}, r"of target values must be of shape \(2, 3\)"),
        ({"probs": np.zeros((2, 3), complex)}, "must hold numbers. Got: complex128"),
        ({"labels": np.array(["x", "x", "y"])}, "distinct"),
    ],
)
def test_arrays_of_the_wrong_shape_or_type_are_refused(changes: dict[str, Any], match: str) -> None:
    arrays = {"id": IDS, "labels": LABELS, "probs": np.zeros((2, 3)), **changes}
    with pytest.raises(ValueError, match=match):
        read_npz(archive(**arrays), "")


def test_a_header_without_its_values_is_refused() -> None:
    data = with_raw("probs", header((2, 3)), id=IDS, labels=LABELS)
    with pytest.raises(PredictionsError, match=r"must hold the 24 bytes .* Got: 0 bytes"):
        read_npz(data, "")


def test_a_bomb_is_refused_by_its_declared_size() -> None:
    """2 GB of zeros in 2 MB: only the headers are unpacked."""
    out = io.BytesIO(archive(labels=LABELS))
    rows = 90_000_000
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        for name, shape, dtype in (("id", (rows,), "<U1"), ("probs", (rows, 3), "<f4")):
            with zipped.open(f"{name}.npy", "w", force_zip64=True) as entry:
                entry.write(header(shape, dtype))
                size, block = int(np.prod(shape)) * 4, bytes(2**24)
                for start in range(0, size, len(block)):
                    entry.write(block[: size - start])
    with pytest.raises(PredictionsError, match="must need at most 1,024 MiB of memory"):
        read_npz(out.getvalue(), "")


def test_members_are_the_prefixed_arrays_and_others_are_no_archive() -> None:
    assert NpzFile(archive(id=IDS, p_a=IDS, p_b=IDS)).members() == ["a", "b"]
    assert NpzFile(archive(id=IDS)).members() == [""]
    with pytest.raises(PredictionsError, match="must be an npz archive"):
        NpzFile(b"no")
    with pytest.raises(PredictionsError, match=r"must hold p_c\. Got: id, labels, p_a"):
        read_npz(archive(id=IDS, labels=LABELS, p_a=np.zeros((2, 3))), "c")
