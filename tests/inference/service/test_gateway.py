"""The service under load: replicas die, versions change, queues fill; no answer is lost."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import requests
from tests.inference.service.conftest import Service, end_service, free_port
from tests.inference.service.pictures import picture

import canopy
from canopy.config import derive
from canopy.errors import ClusterError
from canopy.inference.model_file import write_model_file
from canopy.inference.service.application import application
from canopy.inference.service.run import start
from canopy.inference.service.settings import ServiceOptions
from canopy.storage.run_dir import RunDir

pytestmark = pytest.mark.slow
OPTIONS = ServiceOptions(
    auth=False, min_replicas=2, max_replicas=2, cpus_per_replica=0.5, timeout_s=60, max_images=1024
)


class Load:
    """Clients that send one image after the other and keep every answer.

    Args:
        service: the service.
        clients: number of threads.
        expected: probabilities by seed of the picture.
    """

    def __init__(self, service: Service, clients: int) -> None:
        self.service, self.ended = service, threading.Event()
        self.answers: list[tuple[int, int, Any]] = []
        self._next, self._lock = 0, threading.Lock()
        self._threads = [threading.Thread(target=self._work) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join()

    def wait(self, more: int, patience_s: float = 120) -> None:
        """Wait until ``more`` further answers are there."""
        goal, end = len(self.answers) + more, time.monotonic() + patience_s
        while len(self.answers) < goal:
            assert time.monotonic() < end, f"{len(self.answers)} answers"
            time.sleep(0.05)

    def _work(self) -> None:
        session = requests.Session()
        while not self.ended.is_set():
            with self._lock:
                seed, self._next = self._next, self._next + 1
            parts = [("images", (f"{seed}", picture(seed, (32, 32))))]
            response = session.post(f"{self.service.url}/v1/predict", files=parts, timeout=120)
            self.answers.append((seed, response.status_code, response.json()))


@pytest.fixture
def service(ray_here: None, finished: RunDir) -> Iterator[Service]:
    """A service with two replicas."""
    port = free_port()
    try:
        start(application({"default": finished.root}, OPTIONS), OPTIONS, "127.0.0.1", port)
        yield Service(f"http://127.0.0.1:{port}")
    finally:
        end_service()


def actors(part: str) -> list[Any]:
    """Handles of living Serve replicas whose name holds ``part``."""
    from ray.util import list_named_actors

    found = [one for one in list_named_actors(all_namespaces=True) if part in one["name"]]
    return [ray.get_actor(one["name"], namespace=one["namespace"]) for one in found]


def check(load: Load, model: Any) -> None:
    """Every request has one answer, and it is the right one."""
    assert [(seed, status) for seed, status, _ in load.answers if status != 200] == []
    seeds = [seed for seed, _, _ in load.answers]
    assert sorted(seeds) == list(range(len(seeds))), "each request was answered once"
    files = [picture(seed, (32, 32)) for seed in seeds]
    expected_NK = model.predict(files).probs_NK
    got_NK = [list(body["results"][0]["probabilities"].values()) for _, _, body in load.answers]
    np.testing.assert_allclose(got_NK, expected_NK, atol=1e-4)
    assert [body["results"][0]["id"] for _, _, body in load.answers] == [str(seed) for seed in seeds]


def test_a_replica_that_is_killed_under_load_loses_and_doubles_nothing(
    service: Service, finished: RunDir
) -> None:
    with Load(service, 8) as load:
        load.wait(100)
        for _ in range(2):
            ray.kill(actors("model-default")[0])
            load.wait(100)
    check(load, canopy.load(finished.root, device="cpu"))
    assert len(load.answers) >= 300


def test_a_new_version_is_rolled_in_without_a_lost_request(
    service: Service, finished: RunDir, tmp_path: Path
) -> None:
    newer = with_another_summary(finished, tmp_path)
    write_model_file(newer, newer.load_config())
    before = service.get("/v1/model").json()["version"]
    port = int(service.url.rpartition(":")[2])
    with Load(service, 2) as load:
        load.wait(50)
        start(application({"default": newer.root}, OPTIONS), OPTIONS, "127.0.0.1", port)
        load.wait(50)
    after = service.get("/v1/model").json()
    assert after["summary"].startswith("Newer: ")
    assert {body["version"] for _, _, body in load.answers} == {before, after["version"]}
    check(load, canopy.load(newer.root, device="cpu"))


def test_a_version_that_cannot_start_says_why_and_the_old_one_goes_on(
    service: Service, finished: RunDir, tmp_path: Path
) -> None:
    damaged = with_another_summary(finished, tmp_path)
    before = service.get("/v1/model").json()["version"]
    port = int(service.url.rpartition(":")[2])
    with Load(service, 2) as load:
        load.wait(20)
        with pytest.raises(ClusterError, match=r"Got: model-default: .*ensemble\.json.* goes on\."):
            start(application({"default": damaged.root}, OPTIONS), OPTIONS, "127.0.0.1", port)
        load.wait(20)
    assert {body["version"] for _, _, body in load.answers} == {before}
    check(load, canopy.load(finished.root, device="cpu"))


def with_another_summary(run_dir: RunDir, folder: Path) -> RunDir:
    """A copy of a run, the summary of whose ensemble does not fit its model file."""
    copy = RunDir(str(shutil.copytree(run_dir.root, folder / "newer")))
    file = Path(copy.path("ensemble", "ensemble.json"))
    file.write_text(file.read_text().replace('"summary": "', '"summary": "Newer: '))
    return copy


def test_a_full_queue_says_when_to_come_again(ray_here: None, finished: RunDir) -> None:
    port = free_port()
    options = derive(OPTIONS, max_queue=1, min_replicas=1, max_replicas=1, max_body_mb=64)
    try:
        start(application({"default": finished.root}, options), options, "127.0.0.1", port)
        service, answers = Service(f"http://127.0.0.1:{port}"), list[requests.Response]()
        files = [picture(n, (32, 32)) for n in range(100)]
        burst(120, lambda: answers.append(service.upload(*files)))
        statuses = {response.status_code for response in answers}
        assert 429 in statuses, statuses
        assert statuses <= {200, 429, 504}
        for response in answers:
            if response.status_code == 429:
                assert int(response.headers["Retry-After"]) >= 1
        assert service.upload(files[0]).status_code == 200
    finally:
        end_service()


def test_an_answer_that_takes_too_long_is_an_error_of_its_own(ray_here: None, finished: RunDir) -> None:
    port = free_port()
    options = derive(OPTIONS, timeout_s=0.02, min_replicas=1, max_replicas=1)
    try:
        start(application({"default": finished.root}, options), options, "127.0.0.1", port)
        service = Service(f"http://127.0.0.1:{port}")
        response = service.upload(*[picture(n, (64, 64)) for n in range(60)])
        assert response.status_code == 504, response.text
        assert "must be answered within 0.02 s" in response.json()["error"]
    finally:
        end_service()


def burst(count: int, work: Callable[[], object]) -> None:
    """Run ``work`` in ``count`` threads at once."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
