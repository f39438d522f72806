"""The hub: a real server on loopback that speaks its protocol, and its cache."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from canopy.errors import ConfigError
from canopy.models import hub

COMMIT = "1" * 40
FILES = {"/timm/small/resolve/main/config.json": b'{"architecture": "test_resnet"}'}


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves ``FILES``; everything else is an unknown repository."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, body: bool) -> None:
        """Headers as the hub sends them."""
        path = self.path.partition("?")[0]
        self.asked.append(f"{self.command} {path}")
        data = FILES.get(path)
        known = path.startswith("/timm/small/") or path == "/"
        self.send_response(200 if data is not None or path == "/" else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        if data is None and path != "/":
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.send_header("ETag", '"abc"')
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if body:
            self.wfile.write(data or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The requests that a hub with one repository gets."""
    asked: list[str] = []
    handler = type("Asked", (Hub,), {"asked": asked})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{served.server_port}")
        thread = threading.Thread(target=served.serve_forever, args=(0.05,))
        thread.start()
        yield asked
        served.shutdown()
        thread.join()


def test_a_file_is_downloaded_once(server: list[str]) -> None:
    for _ in range(2):
        path = hub.download("timm/small", ("absent.safetensors", "config.json"), "model.weights")
        assert json.loads(path.read_text()) == {"architecture": "test_resnet"}
    assert sum(request.startswith("GET /timm/small/resolve/main/config.json") for request in server) == 1
    assert hub.cached("timm/small", ("config.json",)) == str(path)


def test_an_unknown_name_and_a_repository_without_weights(server: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"model.weights must name .* hf-hub:timm/smal \(Repository"):
        hub.download("timm/smal", ("config.json",), "model.weights")
    with pytest.raises(ConfigError, match=r"model.weights must hold one of a.bin. Got: hf-hub:timm/small"):
        hub.download("timm/small", ("a.bin",), "model.weights")


@pytest.mark.usefixtures("empty_hub")
def test_a_hub_that_does_not_answer() -> None:
    with pytest.raises(ConfigError, match=r"Got: hf-hub:timm/small \(http://127.0.0.1:\d+: .*refused"):
        hub.download("timm/small", ("config.json",), "model.weights")


@pytest.mark.usefixtures("hub_cache")
def test_offline_is_said_in_one_line() -> None:
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set, and the cache does not hold it") as caught:
        hub.download("timm/small", ("config.json",), "model.weights")
    assert "\n" not in str(caught.value)
