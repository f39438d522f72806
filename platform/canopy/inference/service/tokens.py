"""The token of the service: where it comes from, and how a request's is compared with it.

Only its SHA-256 travels to replicas, because Ray shows the arguments of a deployment in its dashboard.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from canopy.errors import ConfigError
from canopy.inference.service.settings import TOKEN_VARIABLE, ServiceOptions
from canopy.storage import files

SHORTEST = 16
"""Smallest length of a token, in characters: a short one could be found from its hash, or guessed."""
SCHEME = "bearer"


def token_digest(options: ServiceOptions) -> str | None:
    """SHA-256 of the service's token in hexadecimal digits; None where the service needs none.

    Raises:
        ConfigError: when there is no token, or it is too short.
    """
    if not options.auth:
        return None
    if options.token_file is not None:
        thing = f"The token file {files.shown(options.token_file)}"
        try:
            token = files.read_bytes(options.token_file, max_bytes=4096).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ConfigError(
                thing, "must be a readable text file", reason, "Correct --token-file."
            ) from None
    else:
        thing, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE, "").strip()
    remedy = f"Set {TOKEN_VARIABLE} or --token-file, or switch authentication off with --auth False."
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable():
        need = f"must hold a token of at least {SHORTEST} printable ASCII characters"
        raise ConfigError(thing, need, f"{len(token)} characters" if token else "none", remedy)
    return hashlib.sha256(token.encode()).hexdigest()


def is_authorized(digest: str | None, header: str | None) -> bool:
    """Whether an ``Authorization`` header holds the token; compared in constant time.

    Args:
        digest: result of :func:`token_digest`.
        header: the header's value; None where the request has none.
    """
    if digest is None:
        return True
    scheme, _, token = (header or "").partition(" ")
    given = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
    return hmac.compare_digest(given, digest) and scheme.lower() == SCHEME
