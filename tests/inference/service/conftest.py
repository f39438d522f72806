"""The service as a user starts it, in the tests' Ray, and a client for it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from canopy.inference.service.settings import ServiceOptions
from canopy.storage.run_dir import RunDir

TOKEN = "the-token-of-the-tests"


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Service:
    """A running service.

    Args:
        url: its address, without a slash at the end.
    """

    url: str

    def get(self, path: str, token: str | None = TOKEN, **options: Any) -> requests.Response:
        """Answer of a GET request."""
        return requests.get(self.url + path, headers=headers(token), timeout=60, **options)

    def post(self, token: str | None = TOKEN, **options: Any) -> requests.Response:
        """Answer of a prediction."""
        given = options.pop("headers", {}) | headers(token)
        return requests.post(f"{self.url}/v1/predict", headers=given, timeout=180, **options)

    def upload(self, *files: bytes, **options: Any) -> requests.Response:
        """Answer of a prediction of files, sent as multipart."""
        parts = [("images", (f"{n}.img", data)) for n, data in enumerate(files)]
        return self.post(files=parts, **options)


def headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def end_service() -> None:
    """End Ray Serve, and wait until nothing of it is left that a new service could connect to."""
    from ray import serve
    from ray.util import list_named_actors

    serve.shutdown()  # type: ignore[no-untyped-call]
    end = time.monotonic() + 120
    while any("SERVE_CONTROLLER" in one["name"] for one in list_named_actors(all_namespaces=True)):
        assert time.monotonic() < end, "Ray Serve has not ended"
        time.sleep(0.5)


OPTIONS = ServiceOptions(max_body_mb=4, max_images=8, max_megapixels=4, cpus_per_replica=0.5, timeout_s=20)


@pytest.fixture(scope="module")
def served(ray_here: None, finished: RunDir) -> Iterator[Service]:
    """Two names for one run, ``default`` and ``other``."""
    from canopy.inference.service.application import application
    from canopy.inference.service.run import start

    os.environ["CANOPY_SERVE_TOKEN"] = TOKEN
    port = free_port()
    try:
        app = application({"default": finished.root, "other": finished.root}, OPTIONS)
        start(app, OPTIONS, "127.0.0.1", port)
        yield Service(f"http://127.0.0.1:{port}")
    finally:
        del os.environ["CANOPY_SERVE_TOKEN"]
        end_service()
