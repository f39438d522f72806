"""Failures of a training: whether a restart can help, and the reason in one line."""

from __future__ import annotations

from canopy.errors import CanopyError, InfrastructureError
from canopy.runtime.ray_errors import describe_ray_error, is_out_of_memory, last_line

REASON_LENGTH = 400
"""Maximum length of a reason taken from another library's message, which can be pages long."""


def is_permanent(error: BaseException) -> bool:
    """Whether a restart would fail in the same way.

    That is so for every error of Canopy except faults of the infrastructure. Errors of other libraries, which
    include crashes, count as temporary.
    """
    return isinstance(error, CanopyError) and not isinstance(error, InfrastructureError)


def error_for_controller(error: Exception) -> Exception:
    """The error that a worker raises in place of ``error``.

    Ray Train's controller receives the outermost error without its causes and decides by its type. So an
    error of Canopy that Ray or another library wraps is unwrapped here.
    """
    return first_canopy_error(error) or error


def first_canopy_error(error: BaseException) -> CanopyError | None:
    """The first error of Canopy among ``error`` and its causes; None without one.

    Ray wraps a task's error in a class derived from the error's class. Such wrappers are skipped, because
    their text is a traceback.
    """
    own = (cause for cause in causes(error) if isinstance(cause, CanopyError))
    return next((cause for cause in own if type(cause).__module__.startswith("canopy.")), None)


def causes(error: BaseException) -> list[BaseException]:
    """``error`` and all its causes, each before its own causes; through the wrappers of Ray and Ray Train."""
    found: list[BaseException] = []
    pending = [error]
    while pending:
        current = pending.pop(0)
        if any(current is known for known in found):
            continue
        found.append(current)
        pending = direct_causes(current) + pending
    return found


def direct_causes(error: BaseException) -> list[BaseException]:
    """The errors that ``error`` wraps: one per failed rank for an error of Ray Train, else at most one."""
    by_rank = getattr(error, "worker_failures", None) or {}
    failures = [failure for _, failure in sorted(by_rank.items()) if isinstance(failure, BaseException)]
    if failures:
        return failures
    for name in ("controller_failure", "health_check_failure", "cause", "__cause__"):
        cause = getattr(error, name, None)
        if isinstance(cause, BaseException):
            return [cause]
    return []


def failure_reason(error: BaseException) -> str:
    """The reason of a failure in one line.

    It is the error of Canopy where there is one, else a one-line description of Ray's error where its kind is
    known, else the last line of the innermost cause.
    """
    own = first_canopy_error(error)
    if own is not None:
        return str(own)
    all_causes = causes(error)
    # When one rank dies, the others fail with closed connections. What killed it is described first.
    for cause in sorted(all_causes, key=lambda cause: not is_out_of_memory([cause])):
        described = describe_ray_error(cause)
        if described is not None:
            return described
    innermost = error
    for cause in all_causes:
        if direct_causes(innermost)[:1] == [cause]:
            innermost = cause
    text = str(innermost)
    return last_line(text, REASON_LENGTH) if text.strip() else type(innermost).__name__
