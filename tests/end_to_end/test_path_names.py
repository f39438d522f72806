"""Any name that a filesystem allows works in a path, locally and in an object store."""

from __future__ import annotations

import os
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pyarrow as pa
import pytest

from canopy.storage import files
from canopy.storage.lease import hold_lease
from canopy.storage.run_dir import RunDir

NAMES = {
    "umlaut": "Übung",
    "decomposed umlaut": "U\u0308bung",
    "Chinese": "航空影像",
    "emoji": "🛰️ chips",
    "right to left": "צילום",
    "blanks": " a  b ",
    "hash": "run#2",
    "percent": "100%25 %s %2F",
    "question mark": "what?",
    "a query": "what?region=x",
    "two queries": "a?b=c&d=e",
    "ampersand": "a&b=c",
    "quotes": 'it\'s "quoted" `so`',
    "dash": "-rf",
    "double dash": "--run-dir",
    "tilde": "~root",
    "dollar": "$HOME ${x} {y}",
    "wildcards": "*[ab]?",
    "backslash": "a\\b\\n",
    "colon": "a:b",
    "at": "user@host",
    "semicolon": "a;b|c>d",
    "newline": "a\nb",
    "plus": "a+b=c",
    "long": "x" * 200,
    "of the longest length": "x" * 255,
}
any_name = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)


@pytest.fixture(scope="module")
def bucket(s3_here: str) -> str:
    boto3.client("s3").create_bucket(Bucket="paths")
    return "s3://paths"


def round_trip(root: str, name: str) -> None:
    """Write, list, look up, read, parse and delete files with ``name`` as file and as directory."""
    directory = files.join(root, name)
    table = pa.table({"x": [1, 2]})
    files.write_bytes(files.join(directory, name), b"content")
    files.write_json(files.join(directory, "a.json"), {name: name})
    files.write_table(files.join(directory, "sub", "a.parquet"), table)

    assert files.exists(directory)
    assert files.is_dir(directory)
    assert files.read_bytes(files.join(directory, name)) == b"content"
    assert files.read_json(files.join(directory, "a.json")) == {name: name}
    assert files.read_table(files.join(directory, "sub", "a.parquet")).equals(table)
    assert sorted(files.list_files(directory)) == sorted(["a.json", name])
    assert f"{name}/sub/a.parquet" in files.list_files(root, recursive=True)
    beside, last = files.parent(files.join(directory, name))
    assert last == name
    assert files.read_bytes(files.join(beside, last)) == b"content"
    assert files.suffix(files.join(directory, f"{name[:200]}.PARQUET")) == ".parquet"
    assert files.suffix(files.join(directory, "sub", "weights")) == ""
    assert files.absolute(directory) == directory
    files.delete(files.join(directory, name))
    assert not files.exists(files.join(directory, name))
    assert list(files.list_files(directory)) == ["a.json"]


def use_as_run_directory(root: str) -> None:
    """Lease, data record, outputs, mark."""
    run_dir = RunDir(root)
    with hold_lease(root) as lease:
        run_dir.claim("a" * 64, 1, root)
        run_dir.withdraw("train/x/fold0")
        files.write_bytes(run_dir.path("train/x/fold0", "weights.safetensors"), b"weights")
        run_dir.finish("train/x/fold0", "aa", ["weights.safetensors"])
        lease.check()
    assert run_dir.done("train/x/fold0", "aa")
    record = run_dir.read_data()
    assert record is not None
    assert record.root == root
    assert list(files.list_files(root)) == ["data.json"]


@any_name
def test_local_paths(tmp_path: Path, name: str) -> None:
    round_trip(str(tmp_path), name)
    use_as_run_directory(str(tmp_path / name / "run"))
    use_as_run_directory(str(tmp_path / "runs" / name))
    assert sorted(os.listdir(tmp_path)) == sorted([name, "runs"])  # noqa: PTH208


@any_name
def test_paths_relative_to_the_working_directory(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files.write_bytes(name, b"x")
    assert files.read_bytes(name) == b"x"
    assert files.resolve(name)[1] == str(tmp_path / name)
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208


@any_name
def test_file_uris(tmp_path: Path, name: str) -> None:
    round_trip(f"file://{tmp_path}", name)
    assert (tmp_path / name / "a.json").exists()


@pytest.mark.parametrize("name", [name for name in NAMES.values() if name.isprintable() or "🛰" in name])
@pytest.mark.parametrize("query", ["", "?region=us-east-1&scheme=http"], ids=["plain", "with a query"])
def test_object_stores(bucket: str, name: str, query: str) -> None:
    root = files.join(
        f"{bucket}/{'q' if query else 'plain'}{query}", f"{len(name)}-{name[:3].encode().hex()}"
    )
    round_trip(root, name)


@pytest.mark.parametrize("query", ["", "?region=us-east-1&scheme=http"], ids=["plain", "with a query"])
@pytest.mark.parametrize("name", [NAMES[n] for n in ("umlaut", "hash", "percent", "a query", "dash")])
def test_run_directories_in_object_stores(
    bucket: str, name: str, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("canopy.storage.lease.SETTLE_S", 0.0)
    use_as_run_directory(files.join(f"{bucket}/runs{'q' if query else ''}{query}", name))
