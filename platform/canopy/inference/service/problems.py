"""Errors of the service: an HTTP status and four parts."""

from __future__ import annotations

from collections.abc import Mapping

from canopy.errors import FourPartError


class RequestError(FourPartError):
    """A request that is refused or cannot be answered.

    Args:
        status: HTTP status.
        thing: name of the wrong thing.
        constraint: condition on it, as the rest of a sentence.
        got: value received.
        remedy: what to do, as a sentence.
        headers: additional headers of the response.
    """

    def __init__(
        self,
        status: int,
        thing: str,
        constraint: str,
        got: object,
        remedy: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(thing, constraint, got, remedy)
        self.args = status, thing, constraint, got, remedy, headers
        self.status, self.headers = status, dict(headers or {})


class BadImageError(ValueError):
    """An image that a model cannot read.

    Args:
        number: its place in the request, from 0.
        problem: the reason.
    """

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(number, problem)
        self.number, self.problem = number, problem
