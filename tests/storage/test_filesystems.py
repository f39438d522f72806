"""Addresses of files and their errors, on this disk and on an endpoint that refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from canopy.errors import InputError, StorageError
from canopy.storage import files
from canopy.storage.filesystems import resolve


def test_local_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("a/../b")[1] == str(tmp_path / "b")


def test_parts_go_in_front_of_a_query() -> None:
    root = "s3://bucket/runs?region=eu-west-1&scheme=http"
    assert files.join(root, "a", "b.json") == "s3://bucket/runs/a/b.json?region=eu-west-1&scheme=http"
    filesystem, inner = resolve(files.join(root, "a"))
    assert inner == "bucket/runs/a"
    assert filesystem.region == "eu-west-1"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("ftp://host/x", "ftp. Known: file, s3"),
        ("s3:///x", "must name a bucket"),
        ("s3://key:planted@bucket/x", "must not hold credentials"),
        ("s3://bucket/x?secret_key=planted", "must not hold credentials"),
        ("s3://bucket/x?color=red", "that pyarrow can read. Got: Unexpected query parameter"),
    ],
)
def test_a_malformed_address_is_refused(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        files.read_bytes(path)


class _Refusal(BaseHTTPRequestHandler):
    """An S3 endpoint that says no."""

    def do_GET(self) -> None:
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def refusing_bucket() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusal)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    endpoint = f"127.0.0.1:{server.server_port}"
    yield f"s3://bucket/data?scheme=http&endpoint_override={endpoint}&region=us-east-1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "read", [files.read_bytes, files.list_files, files.list_directories, files.exists, files.read_table]
)
def test_a_bucket_that_refuses_is_one_clear_error(
    refusing_bucket: str, read: Callable[[str], object]
) -> None:
    with pytest.raises(StorageError, match=r"must be reachable.*ACCESS_DENIED.*credentials") as error:
        read(refusing_bucket)
    assert "\n" not in str(error.value)
