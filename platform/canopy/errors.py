"""The exceptions that Canopy raises on purpose, and the rules for text that people read.

::

    CanopyError
    ├── FourPartError                   thing, constraint, value received, remedy
    │   ├── InputError (ValueError)     bad input; exit status 2
    │   │   ├── ConfigError             an option, a preset, a config file
    │   │   ├── DataError               a data set, a catalogue, an image
    │   │   ├── PredictionsError        a predictions file, or members that do not match
    │   │   └── RunDirError             a run directory that cannot serve this run
    │   └── InfrastructureError         a service or a machine fails; may pass by itself; exit status 1
    │       ├── StorageError (OSError)  an object store or a disk
    │       └── ClusterError (RuntimeError)  Ray
    ├── StageError (RuntimeError)       a stage that began and failed; exit status 1
    │   ├── FleetError                  variants that failed to train
    │   └── BudgetError                 a run that reached the limit of its cost
    └── Stopped                         not an error: a signal ended the job; exit status 128 + signal number

Programming mistakes are ``assert`` statements, never these exceptions.
"""

from __future__ import annotations

import difflib
import re
import signal
import unicodedata
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

SIGTERM_STATUS = 128 + signal.SIGTERM
"""Exit status of a job that SIGTERM ended, as a shell reports it."""

SECRET_NAME = (
    r"(?:[\w-]*(?:secret|passw(?:or)?d|passphrase|token|signature|credential|accesskeyid|googleaccessid"
    r"|api[-_]?key|access[-_]?key|account[-_]?key|private[-_]?key)[\w-]*|sig|pwd|auth)"
)
"""Names of parameters whose values are secret, in URIs and in the messages of cloud libraries."""
USER_INFO = re.compile(
    r"(?P<scheme>\b[a-z][a-z0-9+.-]*)://(?P<user>[^/@\s]*|[^/@\s:]+:(?!\d+/)[^@\s]*)@", re.I
)
SECRET_VALUE = re.compile(rf"(?<![\w-])(?P<name>{SECRET_NAME})=(?P<value>[^&\s'\"<>]*[^&\s'\"<>.,;])", re.I)
SECRET_ITEM = re.compile(
    rf"(?P<name>(?P<quote>['\"]){SECRET_NAME}(?P=quote)\s*:\s*)(?:'[^']*'|\"[^\"]*\"|[^\s,}}\]]+)", re.I
)
"""A secret parameter in Python's or JSON's text of a mapping."""
ENCODED_QUERY = re.compile(r"(?<=\?)[^\s'\"<>]*%[^\s'\"<>]*")
"""A query with percent-encoded characters."""
SECRET_OPTION = re.compile(rf"--(?:[\w-]+\.)*{SECRET_NAME}", re.I)
NAMED_USERS = {"abfs", "abfss", "hdfs", "gs", "gcs"}
"""Schemes in which a user without a password is no secret: a container, an account name, ``anonymous``."""
AWS, GOOGLE = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS"
AZURE = "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
MLFLOW = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
CREDENTIAL_VARIABLES = {"s3": AWS, "gs": GOOGLE, "gcs": GOOGLE, "abfs": AZURE, "abfss": AZURE}
CREDENTIAL_VARIABLES |= {"http": MLFLOW, "https": MLFLOW}
"""Environment variables that hold the credentials of an address, by its scheme."""


def without_credentials(text: str) -> str:
    """``text`` with the credentials of its URIs removed and the values of secret parameters masked.

    Recognised are user information (``s3://key:secret@bucket``) and the parameters of ``SECRET_NAME``, among
    them ``secret_key``, ``access_key``, ``token``, ``api_key``, ``password``, a SAS token's ``sig``,
    ``X-Amz-Signature``, ``X-Amz-Credential`` and ``X-Amz-Security-Token``; in queries also under
    percent-encoded names, and in the text of mappings (``'password': 'x'``).
    """

    def public(found: re.Match[str]) -> str:
        return f"{found['scheme']}://" if is_secret_user(found) else found.group()

    text = ENCODED_QUERY.sub(_masked_query, USER_INFO.sub(public, text))
    return SECRET_VALUE.sub(r"\g<name>=***", SECRET_ITEM.sub(r"\g<name>***", text))


def _masked_query(query: re.Match[str]) -> str:
    """A query with ``***`` for the values that are secret once they are decoded."""
    parts = []
    for part in query.group().split("&"):
        name, _, value = part.partition("=")
        user = USER_INFO.search(unquote(value))
        secret = SECRET_VALUE.fullmatch(f"{unquote(name)}=x") or (user and is_secret_user(user))
        parts.append(f"{unquote(name)}=***" if secret else part)
    return "&".join(parts)


def is_secret_user(found: re.Match[str]) -> bool:
    """Whether a match of ``USER_INFO`` holds a password or a key."""
    return bool(found["user"]) and (":" in found["user"] or found["scheme"].lower() not in NAMED_USERS)


def refuse_credentials(thing: str, address: str) -> None:
    """Refuse an address that holds credentials: addresses are stored in run directories and printed.

    Args:
        thing: name of the option or the value that holds the address.
        address: a path or a URI.

    Raises:
        InputError: when ``address`` is a URI with credentials; its text does not repeat them.
    """
    if "://" not in address or not ("@" in address or "?" in address):
        return
    query = unquote(address.partition("?")[2])
    users = [found for text in (address, query) if (found := USER_INFO.search(text))]
    if any(map(is_secret_user, users)) or SECRET_VALUE.search(query):
        scheme = re.split(r"[^a-z0-9+.-]", address.partition("://")[0].lower())[-1]
        variables = CREDENTIAL_VARIABLES.get(scheme, "the service's own environment variables")
        remedy = f"Remove them from the address; put them into the environment ({variables})."
        must = "must not hold credentials, because it is stored and printed"
        raise InputError(thing, must, without_credentials(address), remedy)


def refuse_secret_arguments(argv: Sequence[str]) -> None:
    """Refuse a command line that holds credentials, before any of it is used, stored or repeated.

    Args:
        argv: options of any command, known or misspelt.

    Raises:
        ConfigError: when an option has the name of a secret, such as ``--mlflow-password``.
        InputError: when an address holds credentials; the option is named.
    """
    option = "The command line"
    for word in argv:
        value = word
        if word.startswith("--"):
            option, _, value = word.partition("=")
            if SECRET_OPTION.fullmatch(option):
                must, got = "must not be given: the command line is printed and logged", "a credential"
                remedy = f"Put it into the environment (for object stores {AWS}; for MLflow {MLFLOW})."
                raise ConfigError(option, must, got, remedy)
        refuse_credentials(option, value)


def printable(text: str) -> str:
    r"""``text`` with control characters escaped as in Python (``\n``, ``\x1b``), so that it stays one line.

    Escaped are the Unicode categories Cc (control), Zl and Zp (line and paragraph separators), Cs (lone
    surrogates) and the characters of Cf that change the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(c if is_harmless(c) else c.encode("unicode_escape").decode() for c in text)


def is_harmless(character: str) -> bool:
    """Whether a character can be printed without an effect on the characters around it."""
    category = unicodedata.category(character)
    turns = character in "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return category not in {"Cc", "Zl", "Zp", "Cs"} and not turns


class CanopyError(Exception):
    """Base class; ``exit_status`` is the exit status of a job that it ends.

    Its text is one line without control characters and credentials.
    """

    exit_status = 1

    def __str__(self) -> str:
        return printable(without_credentials(super().__str__()))


class FourPartError(CanopyError):
    """An error with a thing, its constraint, the value received and the remedy; its text is one line.

    Args:
        thing: name of the wrong thing as the user knows it (``data.root``, ``train_v2.csv``).
        constraint: condition on the thing, as the rest of a sentence (``must be a directory``).
        got: value received; an exception is kept as its text, in one line.
        remedy: what to do, as a sentence.
    """

    def __init__(self, thing: str, constraint: str, got: object, remedy: str) -> None:
        super().__init__()
        if isinstance(got, BaseException):
            got = " ".join(str(got).split()) or type(got).__name__
        self.args = thing, constraint, got, remedy  # pickle rebuilds the error from these four
        self.thing, self.constraint, self.got, self.remedy = thing, constraint, got, remedy

    def __str__(self) -> str:
        got = self.got if isinstance(self.got, str) else repr(self.got)
        stop = "" if " " in got and got.endswith(".") else "."  # a library's sentence has its own
        return printable(
            without_credentials(f"{self.thing} {self.constraint}. Got: {got}{stop} {self.remedy}")
        )


class InputError(FourPartError, ValueError):
    """Bad input from the user."""

    exit_status = 2


class ConfigError(InputError):
    """An option, a preset or a config file."""


class DataError(InputError):
    """A data set, a catalogue, an image."""


class PredictionsError(InputError):
    """A predictions file, or members that do not match."""


class RunDirError(InputError):
    """A run directory that cannot serve this run."""


class InfrastructureError(FourPartError):
    """A service or a machine that fails: the same command may succeed later."""


class StorageError(InfrastructureError, OSError):
    """An object store that refuses or cannot be reached, or a disk that fails."""


class ClusterError(InfrastructureError, RuntimeError):
    """A Ray cluster that cannot be started or reached."""


class StageError(CanopyError, RuntimeError):
    """A stage that began and failed."""


class FleetError(StageError):
    """Variants that failed to train, each with its reason."""


class BudgetError(StageError):
    """A run that reached the limit of its cost or of its node-hours."""


class Stopped(CanopyError):  # noqa: N818 (not an error: the way in which a signal ends a job)
    """A job that a signal ended.

    Args:
        number: signal number.
        saved_work: description of the running work that was saved, as a phrase.
    """

    def __init__(self, number: int, saved_work: str) -> None:
        super().__init__(number, saved_work)
        self.number, self.saved_work = number, saved_work
        self.exit_status = 128 + number

    def __str__(self) -> str:
        name = signal.Signals(self.number).name
        return printable(f"stopped ({name}); {self.saved_work}. The same command goes on from there.")


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """A phrase for a remedy: the ``count`` known names most similar to ``name``, or the first twelve."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
    names = close or known[:12]
    return f"{'Nearest' if close else 'Known'}: {', '.join(names)}."
