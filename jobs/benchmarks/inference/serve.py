"""Load test of the service on the real server, against the bare model in a loop on the same cores.

    python jobs/benchmarks/inference serve --run-dir RUN_DIR

Each client is one connection that sends one request after the other. ``--kill`` kills a replica of the model
in the middle of the last load; every request must still have one answer, the right one.
"""

from __future__ import annotations

import asyncio
import io
import socket
import statistics
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jobs.benchmarks.env_vars  # noqa: F401  (before numpy, torch and Ray)
import numpy as np
import ray
from jobs.benchmarks.measurement import Report
from PIL import Image

import canopy
from canopy.config import derive
from canopy.inference.service.settings import ServiceOptions
from canopy.runtime.cluster import connect

PICTURES = 64
"""Distinct images; their expected probabilities are known."""


@dataclass
class Load:
    """What the clients saw.

    Args:
        seconds: time of each request.
        sent: number of requests.
        wrong: requests without an answer, or with another image's.
        statuses: number of answers by status.
    """

    seconds: list[float] = field(default_factory=list)
    sent: int = 0
    wrong: int = 0
    statuses: dict[int, int] = field(default_factory=dict)


def serve(
    run_dir: str,
    clients: tuple[int, ...] = (1, 8, 64),
    seconds: float = 20.0,
    images: int = 1,
    replicas: int = 1,
    cpus_per_replica: float = 1.0,
    kill: bool = False,
    out: Path | None = None,
) -> None:
    """Load test of the service.

    Args:
        run_dir: directory of a finished run.
        clients: numbers of connections, each of which sends one request after the other.
        seconds: time of each load.
        images: images in a request.
        replicas: replicas of the model.
        cpus_per_replica: CPUs, and threads, of each.
        kill: kill a replica in the middle of the last load.
        out: JSON-lines file to append records to.
    """
    import torch
    from ray import serve as ray_serve

    report = Report("service", out)
    torch.set_num_threads(max(1, int(cpus_per_replica)) * replicas)
    model = canopy.load(run_dir, device="cpu")
    files = pictures(model.decoder.size)
    expected_NK = model.predict(files).probs_NK
    report.add_value("bare model, images/s", round(bare_rate(model, files, seconds / 2), 1))
    del model
    options = ServiceOptions(
        auth=False,
        min_replicas=replicas,
        max_replicas=replicas,
        cpus_per_replica=cpus_per_replica,
        timeout_s=120,
        max_queue=4096,
    )
    url = started(run_dir, options)
    try:
        for count in clients:
            killed = kill and count == clients[-1]
            load = asyncio.run(apply_load(url, files, expected_NK, count, seconds, images, killed))
            name = f"{count} clients{', a replica killed' if killed else ''}"
            report.add_value(name, summary(load, images, seconds))
        report.add_value("private memory of replicas, MB", memory_mb())
        report.show()
    finally:
        ray_serve.shutdown()  # type: ignore[no-untyped-call]


def pictures(size: int) -> list[bytes]:
    """JPEG files of the model's own size."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(PICTURES):
        coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        stream = io.BytesIO()
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        found.append(stream.getvalue())
    return found


def bare_rate(model: Any, files: list[bytes], seconds: float) -> float:
    """Images per second of the model alone, decoding included, in batches of ``PICTURES``."""
    model.predict(files)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        model.predict(files)
        count += len(files)
    return count / (time.perf_counter() - start)


def started(run_dir: str, options: ServiceOptions) -> str:
    """Start the service; its address."""
    from canopy.inference.service.application import application
    from canopy.inference.service.run import start

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    connect()
    start(application({"default": run_dir}, options), derive(options), "127.0.0.1", port)
    return f"http://127.0.0.1:{port}"


async def apply_load(
    url: str,
    files: list[bytes],
    expected_NK: Any,
    clients: int,
    seconds: float,
    images: int,
    kill: bool,
) -> Load:
    """Let clients send requests for a time.

    Args:
        url: address of the service.
        files: images.
        expected_NK: their probabilities.
        clients: number of connections.
        seconds: time after which no further request is sent.
        images: images in a request.
        kill: whether a replica is killed half-way.
    """
    import aiohttp

    load, end = Load(), time.perf_counter() + seconds
    if kill:
        threading.Timer(seconds / 2, kill_replica).start()

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        rows = np.arange(images) + number
        while time.perf_counter() < end:
            rows = (rows + clients) % len(files)
            form = aiohttp.FormData()
            for row in rows:
                form.add_field("images", files[row], filename=str(row))
            load.sent += 1
            start = time.perf_counter()
            async with session.post(f"{url}/v1/predict", data=form) as answer:
                body = await answer.json()
            load.seconds.append(time.perf_counter() - start)
            load.statuses[answer.status] = load.statuses.get(answer.status, 0) + 1
            load.wrong += not is_right(answer.status, body, rows, expected_NK)

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(client(session, n) for n in range(clients)))
    return load


def is_right(status: int, body: dict[str, Any], rows: Any, expected_NK: Any) -> bool:
    """Whether an answer is that of the images sent, in their order."""
    if status != 200 or [one["id"] for one in body["results"]] != [str(row) for row in rows]:
        return False
    got_NK = [list(one["probabilities"].values()) for one in body["results"]]
    return bool(np.allclose(got_NK, expected_NK[rows], atol=2e-3))


def kill_replica() -> None:
    """Kill one replica of the model."""
    from ray.util import list_named_actors

    found = [one for one in list_named_actors(all_namespaces=True) if "model-default" in one["name"]]
    ray.kill(ray.get_actor(found[0]["name"], namespace=found[0]["namespace"]))


def summary(load: Load, images: int, seconds: float) -> dict[str, Any]:
    """The figures of one load."""
    cuts = statistics.quantiles(load.seconds, n=100)
    return {
        "images/s": round(len(load.seconds) * images / seconds, 1),
        **{f"p{n}_ms": round(1e3 * cuts[n - 1], 1) for n in (50, 95, 99)},
        "sent": load.sent,
        "answered": len(load.seconds),
        "wrong": load.wrong,
        "statuses": load.statuses,
    }


def memory_mb() -> dict[str, float]:
    """Private memory of the processes of Ray Serve, by the name of the actor."""
    import psutil  # type: ignore[import-untyped]  # a dependency of Ray

    found: dict[str, float] = {}
    for process in psutil.process_iter(["name", "cmdline", "memory_info"]):
        title = " ".join(process.info["cmdline"] or [])
        if "ServeReplica" in title or "ProxyActor" in title:
            memory = process.info["memory_info"]
            found[f"{title[:60]} {process.pid}"] = round((memory.rss - memory.shared) / 1e6, 1)
    return found
