"""The Hugging Face hub: one file at a time, from its cache on this machine where it is there."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from canopy.errors import ConfigError
from canopy.models.weights_cache import CachedWeights

HUB = "https://huggingface.co"
HUB_TIMEOUT_S = 10.0
PROBLEM = "must name weights on the Hugging Face hub or in its cache on this machine"
REMEDY = "Check the name; without network, run `canopy weights --fetch` elsewhere and copy the hub's cache."


def cached(repository: str, names: Sequence[str], revision: str | None = None) -> str | None:
    """The path of the first of ``names`` that the hub's cache holds; None without any."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        path = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(path, str):
            return path
    return None


def download(name: str, names: Sequence[str], thing: str) -> Path:
    """The local path of the first of ``names`` that a repository holds.

    The hub's client locks its cache: of several processes one downloads.

    Args:
        name: the repository, such as ``timm/resnet50.a1_in1k``; ``@REVISION`` optional.
        names: file names, the preferred one first.
        thing: name of the option that gave the repository; used in error messages.

    Raises:
        ConfigError: when the hub does not answer and the cache has no copy, or it knows no such name.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    shown = f"hf-hub:{name}"
    if (path := cached(repository, names, revision or None)) is not None:
        return Path(path)
    if (reason := unreachable()) is not None:
        raise ConfigError(thing, PROBLEM, f"{shown} ({reason})", REMEDY)
    endpoint = os.environ.get("HF_ENDPOINT", HUB)
    for file in names:
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None, endpoint=endpoint))
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):
                raise ConfigError(thing, PROBLEM, f"{shown} ({_first_line(error)})", REMEDY) from None
        except Exception as error:  # the client raises errors of several libraries
            raise ConfigError(thing, PROBLEM, f"{shown} ({_first_line(error)})", REMEDY) from None
    raise ConfigError(thing, f"must hold one of {', '.join(names)}", shown, "Take a repository of timm's.")


def unreachable() -> str | None:
    """Why the hub cannot be reached, after one request; its client would retry for most of a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and the cache does not hold it"
    address = os.environ.get("HF_ENDPOINT", HUB)
    try:
        urllib.request.urlopen(address, timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return None  # the hub answers
    except OSError as error:
        reason = getattr(error, "reason", error)
        return None if isinstance(reason, ssl.SSLError) else f"{address}: {reason}"
    return None


def cache() -> str:
    """The directory of the hub's cache on this machine."""
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def cached_repositories() -> list[CachedWeights]:
    """The repositories in the hub's cache that hold weights in timm's form."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        scanned = scan_cache_dir(cache())
    except CacheNotFound:
        return []
    found = []
    for repository in sorted(scanned.repos, key=lambda repo: str(repo.repo_id)):
        for revision in repository.revisions:
            for file in revision.files:
                if file.file_name in {"model.safetensors", "pytorch_model.bin"}:
                    source = f"hf-hub:{repository.repo_id}"
                    found.append(CachedWeights(source, str(file.file_path), file.size_on_disk))
    return found


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
