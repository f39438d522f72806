"""From what a caller gives (paths, bytes, Pillow's images, arrays) to chips as the networks saw them.

Files go through the decoder of training (:mod:`canopy.data.raster.decode`), everything through its resize.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from canopy.bands import SEVERAL_FILES, BandLayout, LevelType, channels_of, dtype_of
from canopy.config import DataConfig, SensorConfig
from canopy.data.loading.chip_source import ChipSource
from canopy.data.loading.uri_list import UriList
from canopy.data.raster.band_chips import decode_band_chip, read_band_chip
from canopy.data.raster.decode import (
    DAMAGE,
    PLAIN,
    UnreadableImageError,
    decode_image,
    resize_pixels,
)
from canopy.data.raster.errors import missing_file
from canopy.data.raster.limits import DEFAULT_MAX_BYTES, max_image_bytes
from canopy.data.raster.pillow import convert_image
from canopy.errors import ConfigError, DataError, StorageError, refuse_credentials
from canopy.storage import files

ImageLike = str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8]
"""One image: path or URI of a file, the bytes of a file, an image of Pillow, RGB pixels (H, W, 3), uint8."""
ImagesLike = ImageLike | Sequence[ImageLike]
"""One image, a list of them, or RGB pixels (N, H, W, 3) of uint8."""
KINDS = "a path, the bytes of a file, an image of Pillow, or an array (H, W, 3) of uint8"


@dataclass(frozen=True)
class ChipDecoder:
    """Turns images into chips as training saw them. It belongs to a model, never to a caller.

    Args:
        size: height and width of a chip, pixels.
        sensor: conversion of files with many bands or 16 bits.
        max_bytes: memory that decoding one image may take, and largest file, bytes.
        layout: the bands of a chip; None for RGB.
    """

    size: int
    sensor: SensorConfig = PLAIN
    max_bytes: int = DEFAULT_MAX_BYTES
    layout: BandLayout | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of a chip."""
        return self.size, self.size, channels_of(self.layout)

    @property
    def dtype(self) -> LevelType:
        """Type of a chip's levels."""
        return dtype_of(self.layout)

    @classmethod
    def of(cls, config: DataConfig) -> ChipDecoder:
        """The decoder that a run's data section describes."""
        return cls(config.image_size, config.sensor, max_image_bytes(config), BandLayout.of(config))

    def chip(self, image: ImageLike) -> NDArray[Any]:
        """One chip, RGB, uint8, (size, size, 3); with bands (size, size, C) of the layout's type.

        An array and an image of Pillow hold the colors to use, so that ``sensor`` does not apply to an array,
        and only its ``bands`` to an image of Pillow.

        Raises:
            UnreadableImageError: when the image is damaged, too large or of an unsupported kind.
            OSError: when its file is missing or may not be read.
            StorageError: when the object store refuses.
            ConfigError: when it is none of the kinds of :data:`ImageLike`.
        """
        if self.layout is not None:
            return self._band_chip(image, self.layout)
        if isinstance(image, bytes | bytearray | memoryview):
            return decode_image(bytes(image), self.size, self.sensor, max_bytes=self.max_bytes)
        if isinstance(image, Image.Image):
            return self._of_pillow(image)
        if isinstance(image, np.ndarray):
            return self._of_pixels(image)
        if isinstance(image, str | os.PathLike):
            path = os.fspath(image)
            refuse_credentials("The image's address", path)
            data = files.read_image(path, self.max_bytes)
            return decode_image(data, self.size, self.sensor, max_bytes=self.max_bytes)
        raise ConfigError("An image", f"must be {KINDS}", type(image).__name__, "Convert it first.")

    def _band_chip(self, image: ImageLike, layout: BandLayout) -> NDArray[Any]:
        """A chip of C bands: of a path, of the bytes of its one file, or of an array of levels."""
        if isinstance(image, bytes | bytearray | memoryview):
            return decode_band_chip([bytes(image)], [""], self.size, layout, self.max_bytes).levels
        if isinstance(image, np.ndarray):
            if image.shape != self.shape or image.dtype != self.dtype:
                need = (
                    f"must hold levels of {self.dtype} in the shape {self.shape}: {', '.join(layout.names)}"
                )
                got = f"{image.dtype} {image.shape}"
                raise ConfigError("An array of bands", need, got, "Convert it, or give the path of the file.")
            return image
        if isinstance(image, str | os.PathLike):
            path = os.fspath(image)
            refuse_credentials("The image's address", path)
            return read_band_chip(self.addresses(path), self.size, layout, self.max_bytes).levels
        need = "must be a path, the bytes of a file, or an array of levels"
        raise ConfigError("An image of several bands", need, type(image).__name__, "Convert it first.")

    def addresses(self, path: str) -> str:
        """Addresses of a chip's files; a path with line breaks names them already."""
        layout = self.layout
        if layout is None:
            return path
        if SEVERAL_FILES in path or any(column is not None for _, column in layout.files):
            return path
        return layout.addresses(path)

    def read_into(self, chip: NDArray[Any], uri: str) -> str:
        """Decode the file at ``uri`` into ``chip``; the problem where it is unreadable, else "".

        Raises:
            StorageError: when the object store fails.
        """
        source = ChipSource(
            self.size, UriList(()), None, self.sensor, max_bytes=self.max_bytes, layout=self.layout
        )
        if self.layout is not None:
            uri = self.addresses(uri)
            return source.decode_into(chip, uri).removeprefix(
                f"{files.shown(uri.partition(SEVERAL_FILES)[0])}: "
            )
        return source.decode_into(chip, uri).removeprefix(f"{files.shown(uri)}: ")

    def chips(self, images: Sequence[ImageLike], first: int = 0) -> NDArray[Any]:
        """The chips of several images, (N, size, size, C).

        Args:
            images: the images.
            first: number of the first of them, for error messages.

        Raises:
            DataError: naming the first image that cannot be read.
            StorageError: when the object store refuses.
            ConfigError: when one is none of the kinds of :data:`ImageLike`.
        """
        chips_NHWC = np.empty((len(images), *self.shape), self.dtype)
        for n, image in enumerate(images):
            try:
                chips_NHWC[n] = self.chip(image)
            except StorageError:
                raise
            except (UnreadableImageError, OSError) as error:
                problem = getattr(error, "why", str(error))
                if isinstance(error, FileNotFoundError):
                    problem = missing_file(error, self.addresses(name_of(image) or ""))
                thing = f"Image {name_of(image) or first + n}"
                raise DataError(thing, "must be readable", problem, "Repair it, or leave it out.") from None
        return chips_NHWC

    def _of_pillow(self, image: Image.Image) -> NDArray[np.uint8]:
        try:
            return convert_image(image, self.size, self.sensor.bands, self.max_bytes)
        except UnreadableImageError:
            raise
        except DAMAGE as error:
            raise UnreadableImageError(f"damaged or truncated: {error or type(error).__name__}") from None

    def _of_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            need = "must be RGB pixels of uint8 in the shape (H, W, 3), or (N, H, W, 3) for several"
            got = f"{pixels.dtype} {pixels.shape}"
            raise ConfigError("An array of pixels", need, got, "Convert it, or give the path of the file.")
        return resize_pixels(np.ascontiguousarray(pixels), self.size)


def listed(images: ImagesLike) -> Sequence[ImageLike]:
    """Several images as a sequence of single ones; one image as a sequence of itself.

    Raises:
        ConfigError: when it is neither.
    """
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image):
        return [images]  # type: ignore[list-item]
    if isinstance(images, np.ndarray):
        return [images] if images.ndim == 3 else images  # type: ignore[return-value]
    if isinstance(images, Sequence):
        return cast(Sequence[ImageLike], images)
    need = f"must be {KINDS}, or a list of such"
    raise ConfigError("The images", need, type(images).__name__, "Convert them first.")


def name_of(image: ImageLike) -> str | None:
    """Path or URI of an image, as given; None for an image without one."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else None


def parts(images: Sequence[ImageLike], rows: int) -> Iterator[tuple[int, Sequence[ImageLike]]]:
    """Position and content of consecutive parts of at most ``rows`` images."""
    for start in range(0, len(images), rows):
        yield start, images[start : start + rows]
