"""The error of an image that cannot be read."""

from __future__ import annotations


class UnreadableImageError(Exception):
    """The bytes do not hold a complete image of a supported kind.

    Args:
        why: reason, as a phrase that follows the image's name.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class FarFromRangeError(UnreadableImageError):
    """Most values of a band lie far outside its range: they are of another unit."""
