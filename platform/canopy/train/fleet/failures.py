"""What went wrong in a training: whether a restart could help, and why in one line."""

from __future__ import annotations

from canopy.errors import CanopyError

LONGEST = 400
"""Characters of a reason; what a library says can be pages long."""


LASTING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Refusals of the outside world that do not pass by themselves."""


def for_the_controller(error: Exception) -> Exception:
    """What a worker raises for ``error``: our own error where each restart would bring it again.

    Causes do not survive the way to Ray Train's controller, so the judgement is made here: a
    ``CanopyError`` that arrives there is final. One that the outside world caused (an ``OSError``, except
    that something is not there) may pass: it travels as an ``OSError``, which is worth a restart.
    """
    ours = our_error(error)
    if ours is None:
        return error
    passes = any(isinstance(one, OSError) and not isinstance(one, LASTING) for one in chain(ours))
    return OSError(str(ours)) if passes else ours


def our_error(error: BaseException) -> CanopyError | None:
    """The outermost error of ours in ``error`` and its causes.

    Ray raises a task's error as one of a class made from its own and the error's; that one is passed over.
    """
    ours = (one for one in chain(error) if isinstance(one, CanopyError))
    return next((one for one in ours if type(one).__module__.startswith("canopy.")), None)


def chain(error: BaseException | None) -> list[BaseException]:
    """``error`` and its causes, outermost first, through Ray's wrappers too."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        failures = getattr(error, "worker_failures", None)
        inner = next(iter(failures.values())) if failures else None
        error = inner or getattr(error, "controller_failure", None) or getattr(error, "cause", None)
        error = error or found[-1].__cause__
    return found


def reason(error: BaseException) -> str:
    """The innermost cause, in one line: what a person can act on."""
    found, ours = chain(error), our_error(error)
    if ours is not None:
        return str(ours)
    lines = [line.strip() for line in str(found[-1]).splitlines() if line.strip()]
    return lines[-1][:LONGEST] if lines else type(found[-1]).__name__
