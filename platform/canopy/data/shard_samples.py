"""What a sample of a shard is, and its labels: names or numbers in the forms that shards hold them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from canopy.data.label_cells import parse_labels
from canopy.errors import DataError

IMAGE_ENDINGS = ("jpg", "jpeg", "jfif", "png", "tif", "tiff", "webp", "bmp", "gif", "jp2", "avif")
NUMBER = re.compile(r"-?[0-9]+")
NUMBERS = re.compile(rf"[\[(]?\s*{NUMBER.pattern}(?:[\s,]+{NUMBER.pattern})*\s*[\])]?")
REMEDY = "Restore the shard, or download it again."


class Sample(NamedTuple):
    """One sample.

    Attributes:
        id: its unique name, or empty for that of its place.
        place: its key or row in the shard.
        image: the image file; empty with a problem.
        labels: names of its labels.
        group: name of its group, or empty.
        problem: why it cannot be used; empty where it can.
        ending: ``.jpg`` and so on, as the shard names the image; empty where it does not.
    """

    id: str
    place: str
    image: bytes
    labels: tuple[str, ...]
    group: str = ""
    problem: str = ""
    ending: str = ""


class BadSampleError(Exception):
    """A sample that cannot be used; its text is the reason."""


def fitting_image(content: bytes | int, max_bytes: int) -> bytes:
    """The content of an image; a number is the size of one that was not read.

    Raises:
        BadSampleError: when it is empty, or larger than ``max_bytes``.
    """
    size = content if isinstance(content, int) else len(content)
    if isinstance(content, int) or size > max_bytes:
        limit = f"data.max_image_mb ({max_bytes / 1e6:,.0f})"
        raise BadSampleError(f"its image has {size / 1e6:,.0f} MB, more than {limit}")
    if not content:
        raise BadSampleError("its image is empty")
    return content


def storable(text: str, part: str) -> str:
    """``text``, the name of a ``part`` of a sample.

    Raises:
        BadSampleError: when it is no text of Unicode: JSON may hold a half of a pair of surrogates.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadSampleError(f"its {part} {text!r} is no text of Unicode") from None
    return text


def image_ending(name: str) -> str:
    """The ending of an image's name, for the name of its file; decoding goes by the content."""
    last = name.rpartition(".")[2].lower()
    return f".{last}" if last in IMAGE_ENDINGS else ""


def label_names(where: str, cell: object, names: Sequence[str]) -> tuple[str, ...]:
    """Names of labels from a list or a text of names or numbers.

    Args:
        where: the sample's place, for errors.
        cell: a list, a text, a number or None.
        names: names of numbers, from 0 on.

    Raises:
        DataError: when there are numbers and no names.
        BadSampleError: when a number has no name, a list says 0 or 1 for each label, or the text is no list.
    """
    if isinstance(cell, str):
        text = cell.strip()
        # A text is a list, or names between commas or lines; numbers may have blanks between them.
        numbers = NUMBERS.fullmatch(text)
        parts: Sequence[object] = NUMBER.findall(text) if numbers else ()
        if not numbers:
            try:
                parts = parse_labels(where, text if text[:1] == "[" else re.sub(r"[\r\n]+", ",", text), ",")
            except DataError as error:
                raise BadSampleError(f"its labels cannot be read: {error.got}") from None
    elif isinstance(cell, list | tuple):
        parts = cell
    else:
        parts = () if cell is None else (cell,)
    if len(parts) == len(names) > 2 and {str(part) for part in parts} <= {"0", "1"}:
        # Read as numbers, it would silently mean the first two labels in every sample.
        reason = f"its labels are {len(parts)} times 0 or 1: the numbers of those that it has are needed"
        raise BadSampleError(reason)
    return tuple(dict.fromkeys(_label_name(where, part, names) for part in parts if part is not None))


def _label_name(where: str, label: object, names: Sequence[str]) -> str:
    number = label if isinstance(label, int) and not isinstance(label, bool) else None
    if number is None and isinstance(label, str) and NUMBER.fullmatch(label) and label not in names:
        number = int(label[:19])  # Python refuses thousands of digits
    if number is None:
        if not isinstance(label, str) or not label.strip():
            raise BadSampleError(f"{label!r} is no label: names or numbers are needed")
        return storable(label.strip(), "label")
    if not names:
        need, remedy = "must have names for numbers of labels", "Set data.shards.names to the list of names."
        raise DataError(where, need, f"the number {number}", remedy)
    if not 0 <= number < len(names):
        raise BadSampleError(f"its label {number} is none of the {len(names)} of data.shards.names")
    return names[number]
