"""Fixtures of all tests: one real Ray, a real object store, the real chips where they are at hand."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from tests.clusters import head, nodes, start  # noqa: F401 (fixtures)
from tests.support import REPOSITORY, tiny_experiment

from canopy.config import Experiment
from canopy.runtime.cluster import quiet

os.environ["RAY_AUTH_MODE"] = "disabled"  # a Ray of our own, on loopback, for as long as the tests run
os.environ.pop("RAY_ADDRESS", None)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children ignore it

# Ray's processes inherit the environment when Ray starts, so the store's address is fixed before it runs.
S3_SOCKET = socket.socket()
S3_SOCKET.bind(("127.0.0.1", 0))
os.environ |= {
    "AWS_ENDPOINT_URL": f"http://127.0.0.1:{S3_SOCKET.getsockname()[1]}",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


RAY_WORDS = ("ray_here", "connect()")
"""Words of a test file whose tests share one Ray."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``-n 2`` one worker runs all files that share one Ray; the others go to whichever is free.

    Groups by the mark ``xdist_group`` do not work with pytest 9.2, where a node has no ``_nodeid``.
    """
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class RayInOneWorker(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid.partition("::")[0])

    return RayInOneWorker(config, log)


@lru_cache
def scope_of(file: str) -> str:
    """``Ray`` for a file that shares the Ray, else the file itself: files of one scope share a worker."""
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    return "Ray" if any(word in text for word in RAY_WORDS) else file


@pytest.fixture(autouse=True)
def caplog_sees_warnings() -> None:
    """Undo what Ray does to the handlers of the root logger: pytest's stay at ERROR after it has started."""
    for handler in logging.root.handlers:
        handler.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """One Ray for all tests, started as a job starts it, on free ports, in a folder of its own."""
    import ray

    # Not below pytest's own folder: socket paths must stay short.
    with tempfile.TemporaryDirectory(prefix="cray", ignore_cleanup_errors=True) as folder:
        ray.init(
            "local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=500 << 20,
            _temp_dir=folder,
        )
        quiet()
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def s3_here() -> Iterator[str]:
    """Endpoint of a server that speaks S3 on loopback; the environment holds its address already."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise
    S3_SOCKET.listen(128)
    host, port = S3_SOCKET.getsockname()
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server(host, port, app, threaded=True, fd=S3_SOCKET.fileno())
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield os.environ["AWS_ENDPOINT_URL"]
    server.shutdown()
    thread.join()


@pytest.fixture(scope="session")
def planet32() -> Path:
    """Folder with ``train_v2.csv`` and ``train-jpg.zip`` of the real chips; skips where it is absent."""
    place = Path(os.environ.get("CANOPY_SHARED_DATA", REPOSITORY.parent / "shared" / "data")) / "planet32"
    if not (place / "train-jpg.zip").exists():
        pytest.skip(f"the real chips are not here ({place}); set CANOPY_SHARED_DATA to the folder above")
    return place


@pytest.fixture
def tiny() -> Experiment:
    """A whole experiment of test size."""
    return tiny_experiment()
