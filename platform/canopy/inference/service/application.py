"""The service as an application of Ray Serve: one deployment that speaks HTTP, one for each model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError
from ray import serve
from ray.serve import Application

from canopy.config import Section
from canopy.config.validation_errors import config_error
from canopy.errors import ConfigError
from canopy.inference.service.gateway import Gateway
from canopy.inference.service.replica import ModelReplica
from canopy.inference.service.settings import ServiceOptions, named_models
from canopy.inference.service.tokens import token_digest
from canopy.labels import LabelSet
from canopy.storage import files

REPLICA_ONGOING = 64
"""Requests that a model's replica holds at once: they are the next batch while one is computed."""
GATEWAY_ONGOING = 512
ROLL = {"max_surge_percent": 100, "graceful_shutdown_timeout_s": 60.0}
"""A new version starts before the old one ends, and the old one finishes what it has begun."""


class ServiceArguments(Section):
    """Arguments of :func:`build` in a config file of Ray Serve."""

    models: dict[str, str] = Field(min_length=1)
    """Name -> directory or URI of a finished run."""
    options: ServiceOptions = ServiceOptions()
    """Limits, batching, replicas and authentication."""


def application(models: Mapping[str, str], options: ServiceOptions) -> Application:
    """The application over named models; every model's ensemble is read, none of its networks.

    Raises:
        ConfigError: when there is no token, the labels of two models differ, or a model's chips have several
            files.
        RunDirError: when a run is not finished.
    """
    digest = token_digest(options)
    require_equal_labels({name: labels_of(place) for name, place in models.items()})
    for name, place in models.items():
        require_one_file(name, place)
    deployment: Any = serve.deployment
    replicas = {
        name: deployment(ModelReplica, **model_deployment(name, options)).bind(
            name, files.absolute(place), options
        )
        for name, place in models.items()
    }
    gateway = deployment(serve.ingress()(Gateway), **gateway_deployment(options))
    bound: Application = gateway.bind(options, digest, replicas)
    return bound


def build(arguments: dict[str, Any]) -> Application:
    """The application of a config file of Ray Serve (``import_path``), from its ``args``.

    Raises:
        ConfigError: when the arguments are wrong; see also :func:`application`.
    """
    try:
        given = ServiceArguments.model_validate(arguments)
    except ValidationError as error:
        raise config_error("args", error) from None
    places = named_models([f"{name}={place}" for name, place in given.models.items()])
    return application(places, given.options)


def model_deployment(name: str, options: ServiceOptions) -> dict[str, Any]:
    """Options of a model's deployment."""
    return {
        "name": f"model-{name}",
        "max_ongoing_requests": REPLICA_ONGOING,
        "max_queued_requests": options.max_queue,
        "ray_actor_options": {
            "num_cpus": options.cpus_per_replica,
            **({"num_gpus": options.gpus_per_replica} if options.gpus_per_replica else {}),
        },
        "autoscaling_config": {
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
            "target_ongoing_requests": REPLICA_ONGOING / 4,
        },
        **ROLL,
    }


def gateway_deployment(options: ServiceOptions) -> dict[str, Any]:
    """Options of the deployment that speaks HTTP."""
    return {
        "name": "gateway",
        "num_replicas": options.http_replicas,
        "max_ongoing_requests": GATEWAY_ONGOING,
        "max_queued_requests": options.max_queue,
        "backpressure_config": {"status_code": 429, "retry_after_s": 1},
        "ray_actor_options": {"num_cpus": 0.1},
        **ROLL,
    }


def labels_of(place: str) -> LabelSet:
    """The labels of a run or of a folder in the hub's layout.

    Raises:
        RunDirError: when the run is not finished or the folder is damaged.
    """
    from canopy.inference.load import read_labels

    return read_labels(place)


def require_one_file(name: str, place: str) -> None:
    """Refuse a model whose chips lie in several files: an image of a request is one file.

    Raises:
        ConfigError: naming the files.
        RunDirError: when the run is not finished or the folder is damaged.
    """
    from canopy.inference.load import read_layout

    layout = read_layout(place)
    if layout is not None and len(layout.files) > 1:
        found = ", ".join(column or pattern or "the chip's path" for pattern, column in layout.files)
        need, remedy = "must read chips of one file each to be served", "Use canopy predict or canopy.load."
        raise ConfigError(f"The model {name}", need, f"{len(layout.files)} files ({found})", remedy)


def require_equal_labels(labels: Mapping[str, LabelSet]) -> None:
    """Refuse models whose labels differ in names or order.

    Clients choose a model by its name and expect the same columns.

    Raises:
        ConfigError: naming the first difference.
    """
    (first, expected), *others = labels.items()
    for name, found in others:
        if found == expected:
            continue
        pairs = zip(found.names, expected.names, strict=False)
        k = next((k for k, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
        got = (
            f"{len(found)} labels of {name} and {len(expected)} of {first}"
            if k is None
            else f"label {k + 1} is {found.names[k]} in {name} and {expected.names[k]} in {first}"
        )
        need, remedy = "must have the same labels in the same order", "Serve them as two services."
        raise ConfigError("All models of a service", need, got, remedy)
