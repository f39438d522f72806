"""Every error that Canopy raises on purpose.

::

    CanopyError
    ├── InputError (ValueError)        what the user gave cannot be used; exit status 2
    │   ├── ConfigError                an option, a preset, a config file
    │   ├── DataError                  a data set, a catalogue, an image
    │   ├── PredictionsError           a file of probabilities, or members that do not fit together
    │   └── RunDirError                a run directory that cannot serve this run
    ├── StageError (RuntimeError)      a stage that began and could not end; exit status 1
    │   └── FleetError                 variants that failed to train
    └── Stopped                        no error: a signal ended the job; exit status 128 + its number

An ``InputError`` always says four things: the thing, its constraint, the value received, the remedy.
Our own mistakes are ``assert`` statements, never these.
"""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable

SIGTERM_STATUS = 128 + signal.SIGTERM
"""What a job ends with, as a shell tells of a process that a signal ended."""


def without_credentials(text: str) -> str:
    """``text`` without what stands before the ``@`` of a URI in it, or behind ``secret=`` and the like."""
    text = re.sub(r"(?<=://)[^/@\s]*@", "", text)
    return re.sub(r"(\w*(?:secret|password|token)\w*=)[^&\s]+", r"\1***", text)


class CanopyError(Exception):
    """Base of all; ``exit_status`` is what a job ends with."""

    exit_status = 1


class InputError(CanopyError, ValueError):
    """Something the user gave cannot be used.

    Args:
        thing: what is wrong, by the name the user knows it by (``data.root``, ``train_v2.csv``).
        constraint: what must hold, as the rest of a sentence after the thing (``must be a directory``).
        got: the value received.
        remedy: what to do about it, as a sentence.
    """

    exit_status = 2

    def __init__(self, thing: str, constraint: str, got: object, remedy: str) -> None:
        super().__init__(thing, constraint, got, remedy)  # all four, so that it survives pickling
        self.thing, self.constraint, self.got, self.remedy = thing, constraint, got, remedy

    def __str__(self) -> str:
        got = self.got if isinstance(self.got, str) else repr(self.got)
        return without_credentials(f"{self.thing} {self.constraint}. Got: {got}. {self.remedy}")


class ConfigError(InputError):
    """An option, a preset or a config file."""


class DataError(InputError):
    """A data set, a catalogue, an image."""


class PredictionsError(InputError):
    """A file of probabilities, or members that do not fit together."""


class RunDirError(InputError):
    """A run directory that cannot serve this run."""


class StageError(CanopyError, RuntimeError):
    """A stage that began and could not end."""


class FleetError(StageError):
    """Variants that failed to train, each named with its reason."""


class Stopped(CanopyError):  # noqa: N818 (no error, but what a job ends with)
    """A job that ended because it was told to.

    Args:
        number: of the signal.
        told: what is kept of what was running, in words.
    """

    def __init__(self, number: int, told: str) -> None:
        super().__init__(number, told)
        self.number, self.told = number, told
        self.exit_status = 128 + number

    def __str__(self) -> str:
        name = signal.Signals(self.number).name
        return f"stopped ({name}); {self.told}. The same command goes on from there."


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """The known names most like ``name``, as a phrase for a remedy; all of them when none is near."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
    names = close or known[:12]
    return f"{'Nearest' if close else 'Known'}: {', '.join(names)}."
