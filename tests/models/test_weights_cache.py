"""The cache of weights: one download per machine."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest

from canopy.errors import ConfigError, StorageError
from canopy.models.weights_cache import cached_copies, check_sha256, fetch
from canopy.storage import files
from canopy.storage.checksum import sha256_of

URI = "s3://weights/deep/own.safetensors"


@pytest.fixture
def bucket(s3_here: str) -> None:
    boto3.client("s3", endpoint_url=s3_here).create_bucket(Bucket="weights")


@pytest.mark.usefixtures("bucket")
def test_an_object_is_copied_once_and_again_when_it_was_replaced(own_cache: Path) -> None:
    files.write_bytes(URI, b"first")
    path = fetch(URI)
    assert path.read_bytes() == b"first"
    assert own_cache in path.parents
    before = path.stat().st_ino
    assert fetch(URI).stat().st_ino == before
    files.write_bytes(URI, b"second")
    assert fetch(URI).read_bytes() == b"second"
    assert [(copy.source, copy.path) for copy in cached_copies()] == [(URI, str(path))]


@pytest.mark.usefixtures("bucket")
def test_a_copy_that_was_cut_off_is_fetched_again() -> None:
    files.write_bytes(URI, b"whole")
    fetch(URI).write_bytes(b"who")
    assert fetch(URI).read_bytes() == b"whole"


@pytest.mark.slow  # pyarrow tries for seconds
@pytest.mark.usefixtures("bucket")
def test_a_store_that_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    away = "s3://weights/away?endpoint_override=127.0.0.1:1&scheme=http"
    with pytest.raises(StorageError):
        fetch(away)
    with pytest.raises(FileNotFoundError):
        fetch("s3://weights/nothing")
    files.write_bytes(URI, b"whole")
    kept = fetch(URI)
    # the same entry of the cache, for an address that does not answer
    entry = Path(kept).parent
    other = entry.parent / hashlib.sha256(away.encode()).hexdigest()[:16]
    other.rename(entry.parent / "empty")
    entry.rename(other)
    (other / "source.json").write_text((other / "source.json").read_text().replace(str(entry), str(other)))
    with caplog.at_level(logging.WARNING, "canopy"):
        assert fetch(away).read_bytes() == b"whole"
    assert "the copy in the cache is used" in caplog.text


def fetch_and_tell(uri: str, inodes: str) -> None:
    path = fetch(uri)
    Path(inodes, str(os.getpid())).write_text(f"{path.stat().st_ino} {path.read_bytes().decode()}")


@pytest.mark.usefixtures("bucket")
def test_processes_that_ask_together_download_once(tmp_path: Path) -> None:
    files.write_bytes(URI, b"x" * 100_000)
    (tmp_path / "inodes").mkdir()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=fetch_and_tell, args=(URI, str(tmp_path / "inodes"))) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    inodes = [file.read_text() for file in (tmp_path / "inodes").iterdir()]
    assert len(inodes) == 3
    assert len(set(inodes)) == 1, "a write replaces the file: one inode means one download"


def test_a_hash_that_differs_names_both(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    own = sha256_of(str(tmp_path / "a"))
    assert own == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    check_sha256(tmp_path / "a", own.upper(), "model.weights", "a")
    check_sha256(tmp_path / "a", None, "model.weights", "a")
    with pytest.raises(ConfigError, match=rf"model.weights must have SHA-256 {'0' * 64}. Got: a with {own}"):
        check_sha256(tmp_path / "a", "0" * 64, "model.weights", "a")
