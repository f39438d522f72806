"""Files: written values come back, readers see whole files, refusals are one clear error."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pytest

from canopy.errors import InputError
from canopy.storage import files


def test_bytes_json_and_tables_come_back(tmp_path: Path) -> None:
    root = str(tmp_path / "run")
    files.write_bytes(files.join(root, "a", "b.bin"), b"\x00\x01")
    files.write_json(files.join(root, "c.json"), {"z": [1, 2.5, None], "a": "é"})
    table = pa.table({"x": [1, 2]}).replace_schema_metadata({"k": "v"})
    files.write_table(files.join(root, "d.parquet"), table)

    assert files.read_bytes(files.join(root, "a", "b.bin")) == b"\x00\x01"
    assert list(files.read_json(files.join(root, "c.json"))) == ["z", "a"]  # in the order of writing
    back = files.read_table(files.join(root, "d.parquet"))
    assert back.equals(table)
    assert files.metadata(back) == {"k": "v"}
    assert files.list_files(root) == {
        "c.json": len('{\n "z": [\n  1,\n  2.5,\n  null\n ],\n "a": "é"\n}\n'.encode()),
        "d.parquet": Path(root, "d.parquet").stat().st_size,
    }
    assert list(files.list_files(root, recursive=True)) == ["a/b.bin", "c.json", "d.parquet"]
    assert files.list_directories(root) == ["a"]


def test_a_local_file_is_copied(tmp_path: Path) -> None:
    (tmp_path / "source.tif").write_bytes(b"\x00\x01" * 1000)
    for place in ("deep/copy.tif", "deep/copy.tif"):  # replaced the second time
        files.copy_here(str(tmp_path / place), tmp_path / "source.tif")
    assert (tmp_path / "deep" / "copy.tif").read_bytes() == b"\x00\x01" * 1000
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["copy.tif"]
    with pytest.raises(FileNotFoundError):
        files.copy_here(str(tmp_path / "other"), tmp_path / "missing")


def test_a_file_uri_is_the_same_place(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}"
    files.write_bytes(files.join(uri, "x", "y"), b"1")
    assert (tmp_path / "x" / "y").read_bytes() == b"1"
    assert files.read_bytes(files.join(uri, "x", "y")) == b"1"
    assert files.exists(files.join(uri, "x", "y"))
    assert files.is_dir(files.join(uri, "x"))
    assert not files.exists(files.join(uri, "z"))


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "x")
    contents = {b"a" * 300_000, b"b" * 300_000}
    files.write_bytes(path, b"a" * 300_000)
    done = threading.Event()

    def write() -> None:
        for _ in range(20):
            for content in sorted(contents):
                files.write_bytes(path, content)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert files.read_bytes(path) in contents
    writer.join()
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = str(tmp_path / "x.json")
    files.write_json(path, {"good": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"bad": float("nan")})
    unwritable = pa.table({"x": pa.array([None], pa.month_day_nano_interval())})  # no Parquet type for it
    with pytest.raises(pa.ArrowNotImplementedError):
        files.write_table(str(tmp_path / "y.parquet"), unwritable)
    assert files.read_json(path) == {"good": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read_json(str(tmp_path / "none.json"))
    with pytest.raises(FileNotFoundError):
        files.list_files(str(tmp_path / "none"))
    damaged = str(tmp_path / "damaged")
    files.write_bytes(damaged, b'{"a": ')
    with pytest.raises(InputError, match="damaged must be JSON"):
        files.read_json(damaged)
    with pytest.raises(InputError, match="must be a Parquet file"):
        files.read_table(damaged)
