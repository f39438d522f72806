"""Checked reading of JSON: each value carries its file name and JSON path, so that an error names both."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from canopy.errors import InputError

INFINITY = math.inf


@dataclass(frozen=True)
class JsonField:
    """One value of a JSON document.

    Args:
        value: the parsed value.
        file: file name, for messages.
        error: class of the errors that the readers below raise.
        remedy: what to do about a damaged file, as a sentence.
        path: keys and positions that lead to the value, e.g. ``combination.weights``; empty for the document.
    """

    value: Any
    file: str
    error: type[InputError]
    remedy: str
    path: str = ""

    @classmethod
    def parse(cls, data: bytes, file: str, error: type[InputError], remedy: str) -> JsonField:
        """The document in ``data``.

        Raises:
            InputError: of class ``error``, when it is not JSON, holds NaN or Infinity, or repeats a key.
        """
        try:
            value = json.loads(data, parse_constant=_refuse_constant, object_pairs_hook=_object_of)
        except (ValueError, RecursionError) as problem:
            reason = str(problem) or type(problem).__name__
            raise error(file, "must be a JSON file", reason, remedy) from problem
        return cls(value, file, error, remedy)

    def refuse(self, constraint: str, got: object = ...) -> NoReturn:
        """Raise the error that names file and field.

        Args:
            constraint: what must hold, as the rest of a sentence after the field's name.
            got: what was found; the field's value where omitted.
        """
        found = json_text(self.value) if got is ... else str(got)
        thing = f"{self.file}: {self.path}" if self.path else self.file
        raise self.error(thing, constraint, found, self.remedy)

    def mapping(self) -> Mapping[str, Any]:
        """The value, which must be an object."""
        if not isinstance(self.value, dict):
            self.refuse("must be an object")
        return self.value

    def get(self, key: str) -> JsonField:
        """The field under ``key``, which must exist."""
        if key not in self.mapping():
            self._child(key, None).refuse("must be present", "no such field")
        return self._child(key, self.value[key])

    def optional(self, key: str) -> JsonField | None:
        """The field under ``key``; None where it is missing or null."""
        value = self.mapping().get(key)
        return None if value is None else self._child(key, value)

    def keyed(self, names: Sequence[str]) -> list[JsonField]:
        """The fields of an object whose keys must be exactly ``names``, in this order."""
        keys = list(self.mapping())
        if keys != list(names):
            pairs = zip(keys, names, strict=False)
            first = next(
                (n for n, (key, name) in enumerate(pairs) if key != name), min(len(keys), len(names))
            )
            found = repr(keys[first]) if first < len(keys) else "nothing"
            wanted = repr(names[first]) if first < len(names) else "nothing"
            self.refuse(
                f"must hold the {len(names)} expected names in their order", f"{found} in place of {wanted}"
            )
        return [self._child(key, value) for key, value in self.value.items()]

    def items(self) -> list[JsonField]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            self.refuse("must be a list")
        return [replace(self, value=value, path=f"{self.path}[{n}]") for n, value in enumerate(self.value)]

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            self.refuse("must be text")
        return self.value

    def texts(self) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(item.text() for item in self.items())

    def choice(self, options: Sequence[str]) -> str:
        """One of ``options``."""
        if self.value not in options or not isinstance(self.value, str):
            self.refuse(f"must be one of {', '.join(options)}")
        return self.value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            self.refuse("must be true or false")
        return self.value

    def integer(self, low: int = 0, high: float = INFINITY) -> int:
        """A whole number in [low, high]."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not low <= self.value <= high:
            self.refuse(f"must be a whole number {_range(low, high)}")
        return self.value

    def number(self, low: float = -INFINITY, high: float = INFINITY) -> float:
        """A finite number in [low, high]."""
        value = _finite(self.value)
        if value is None or not low <= value <= high:
            self.refuse(f"must be a finite number {_range(low, high)}".rstrip())
        return value

    def number_or_none(self, low: float = -INFINITY, high: float = INFINITY) -> float | None:
        """A finite number in [low, high], or None for null."""
        return None if self.value is None else self.number(low, high)

    def array(
        self, shape: Sequence[int | None], low: float = -INFINITY, high: float = INFINITY
    ) -> NDArray[np.float64]:
        """Nested lists of finite numbers in [low, high] as a float64 array.

        Args:
            shape: length of each axis; None for any length.
            low: least value.
            high: greatest value.
        """
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        if not _has_shape(self.value, shape):
            self.refuse(f"must be an array of finite numbers of shape ({wanted})")
        try:
            values = np.array(self.value, np.float64)
        except ValueError:  # lists of unequal length
            self.refuse(f"must be an array of finite numbers of shape ({wanted})")
        if values.size and (values.min() < low or values.max() > high):
            outside = values[(values < low) | (values > high)][0]
            self.refuse(f"must hold numbers {_range(low, high)}", float(outside))
        return values

    def _child(self, key: str, value: Any) -> JsonField:
        step = key if key.isidentifier() else f"[{key!r}]"
        path = step if not self.path else f"{self.path}{'.' if key.isidentifier() else ''}{step}"
        return replace(self, value=value, path=path)


def json_text(value: Any) -> str:
    """A parsed value in JSON's spelling, shortened to fit a line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return reprlib.repr(value)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"the number {name}")


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} more than once in one object")
    return found


def _finite(value: Any) -> float | None:
    """The value as a float; None where it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _has_shape(value: Any, shape: Sequence[int | None]) -> bool:
    if not shape:
        return _finite(value) is not None
    if not isinstance(value, list) or (shape[0] is not None and len(value) != shape[0]):
        return False
    return all(_has_shape(item, shape[1:]) for item in value)


def _range(low: float, high: float) -> str:
    if high == INFINITY:
        return "" if low == -INFINITY else f"of at least {low:g}"
    return f"of at most {high:g}" if low == -INFINITY else f"in [{low:g}, {high:g}]"
