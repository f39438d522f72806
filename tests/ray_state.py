"""Actors and tasks as Ray's state API reads them, also without a dashboard."""

from __future__ import annotations

import asyncio
from typing import Any

import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.util.state.state_manager import StateDataSourceClient

TIMEOUT_S = 30


async def _read(actors: bool) -> Any:
    address = ray.get_runtime_context().gcs_address
    channel = init_grpc_channel(address, asynchronous=True)
    client = StateDataSourceClient(channel, GcsClient(address=address))
    try:
        if actors:
            return await client.get_all_actor_info(timeout=TIMEOUT_S)
        return await client.get_all_task_info(timeout=TIMEOUT_S)
    finally:
        await client._client_session.close()
        await channel.close()


def actor_names() -> set[str]:
    """What the dashboard shows for each actor of this Ray, living or dead: its ``__repr__``, or its class."""
    actors = asyncio.run(_read(actors=True)).actor_table_data
    return {actor.repr_name or actor.class_name for actor in actors}


def task_names() -> set[str]:
    """Names of the tasks of this Ray; a task appears about a second after it has run."""
    return {events.task_info.name for events in asyncio.run(_read(actors=False)).events_by_task}
