"""The error of an image that cannot be read."""

from __future__ import annotations

from canopy.bands import SEVERAL_FILES


class UnreadableImageError(Exception):
    """The bytes do not hold a complete image of a supported kind.

    Args:
        why: reason, as a phrase that follows the image's name.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def missing_file(error: FileNotFoundError, address: str) -> str:
    """The problem of a missing image in words; of a chip of several files it names the one.

    Args:
        error: what reading gave.
        address: address of the chip (:data:`~canopy.bands.SEVERAL_FILES`).
    """
    if SEVERAL_FILES not in address or not error.filename:
        return "there is no such file"
    return f"there is no file {str(error.filename).rpartition('/')[2]}"


class FarFromRangeError(UnreadableImageError):
    """Most values of a band lie far outside its range: they are of another unit."""
