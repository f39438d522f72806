"""Decodes a chip of C bands: reads its files, brings them to one size, computes indices, gives levels.

What becomes of the samples:

- A value is sample * scale + offset of its band. Bands are resized to the chip's size by the filter of RGB
  chips (Pillow's bilinear, antialiased); pixels without a value have no weight in it.
- A pixel of which less than half has a value has none. It gets the mean of the band's other pixels in the
  chip; the level 0 where the whole band has none.
- An expression is computed from the resized values. Where it is not finite it has no value, which is
  filled in the same way and does not count as nodata.
- The range of a band becomes 0 to the highest level; values beyond are clipped. A floating-point chip of
  which most values lie further from the range than its width is refused: its unit is another.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from PIL import Image

from canopy.bands import SEVERAL_FILES
from canopy.config.band_expression import parse_expression
from canopy.data.raster.band_samples import Samples, read_samples
from canopy.data.raster.errors import FarFromRangeError, UnreadableImageError
from canopy.data.raster.limits import require_file_size
from canopy.storage import files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from canopy.bands import BandLayout
    from canopy.config import BandConfig

    Floats = NDArray[np.float32]
    Resize = Callable[[Floats, NDArray[np.bool_]], tuple[Floats, NDArray[np.bool_]]]

HALF = 0.5
"""Share of a pixel that must have a value, and of a chip whose values may lie far from the range."""


class BandChip(NamedTuple):
    """A decoded chip.

    Attributes:
        levels: the chip, uint8 or uint16, shape (size, size, C).
        width: columns of the largest file.
        height: rows of the largest file.
        bits: depth of the samples as stored, of the first file.
        mode: kind of samples in words.
        nodata: share of pixels without a value in some band, 0 to 1.
    """

    levels: NDArray[np.unsignedinteger]
    width: int
    height: int
    bits: int
    mode: str
    nodata: float


def read_band_chip(address: str, size: int, layout: BandLayout, max_bytes: int) -> BandChip:
    """Read a chip's files and decode them.

    Args:
        address: path or URI of the chip's file; those of several are joined by
            :data:`~canopy.bands.SEVERAL_FILES`.
        size: side of the chip in pixels.
        layout: the bands.
        max_bytes: memory that decoding may take, and largest file.

    Raises:
        UnreadableImageError: when a file is damaged, lacks a band, or does not lie where the others lie; when
            too many pixels have no value, or values are far from the range.
        OSError: when a file is missing or may not be read.
        StorageError: when the object store refuses.
    """
    addresses = address.split(SEVERAL_FILES)
    datas = [files.read_image(one, max_bytes) for one in addresses]
    return decode_band_chip(datas, addresses, size, layout, max_bytes)


def decode_band_chip(
    datas: Sequence[bytes], addresses: Sequence[str], size: int, layout: BandLayout, max_bytes: int
) -> BandChip:
    """Decode the files of a chip; arguments and errors as for :func:`read_band_chip`."""
    if len(datas) != len(layout.files):
        raise UnreadableImageError(
            f"{len(datas)} files where data.bands takes {len(layout.files)}: give one per file, in its order"
        )
    found: dict[str, tuple[Samples, int]] = {}
    of_file: list[Samples] = []
    for data, address, source in zip(datas, addresses, layout.files, strict=True):
        bands = [b for b in layout.bands if b.expression is None and (b.file, b.column) == source]
        if not data:
            raise UnreadableImageError(_named("the file is empty", address, len(datas)))
        try:
            require_file_size(len(data), max_bytes)
            numbers, nodata = [b.band for b in bands], [b.nodata for b in bands]
            samples = read_samples(data, address, numbers, nodata, size, max_bytes)
        except UnreadableImageError as error:
            raise UnreadableImageError(_named(error.why, address, len(datas))) from None
        of_file.append(samples)
        found |= {band.name: (samples, position) for position, band in enumerate(bands)}
    _require_one_place(of_file, addresses)
    return _chip(found, of_file, size, layout)


def _named(why: str, address: str, count: int) -> str:
    return why if count == 1 else f"{files.shown(address).rpartition('/')[2]}: {why}"


def _require_one_place(of_file: Sequence[Samples], addresses: Sequence[str]) -> None:
    """Check that all files cover one area, with pixels that nest."""
    sizes = [one.values_bHW[0].size for one in of_file]
    largest = of_file[sizes.index(max(sizes))]
    name = files.shown(addresses[sizes.index(max(sizes))]).rpartition("/")[2]
    height, width = largest.values_bHW.shape[1:]
    for one, address in zip(of_file, addresses, strict=True):
        own, (rows, columns) = files.shown(address).rpartition("/")[2], one.values_bHW.shape[1:]
        if height % rows or width % columns or height * columns != width * rows:
            raise UnreadableImageError(
                f"files whose pixels do not nest: {own} of {columns} by {rows}, {name} of {width} by {height}"
            )
        if one.crs != largest.crs:
            raise UnreadableImageError(
                f"files of different coordinate systems: {own} {one.crs or 'without one'}, "
                f"{name} {largest.crs or 'without one'}"
            )
        if one.bounds is not None and largest.bounds is not None:
            half_pixel = abs(one.bounds[2] - one.bounds[0]) / columns / 2
            if max(abs(a - b) for a, b in zip(one.bounds, largest.bounds, strict=True)) > half_pixel:
                raise UnreadableImageError(
                    f"files of different places: {own} and {name} differ in their bounds"
                )


def _chip(
    found: Mapping[str, tuple[Samples, int]], of_file: Sequence[Samples], size: int, layout: BandLayout
) -> BandChip:
    def resized(value_HW: Floats, valid_HW: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
        return _resized(value_HW, valid_HW, size)

    levels_SSC, complete_SS = band_levels(found, layout, size, resized)
    nodata = 1 - float(complete_SS.mean())
    if nodata > layout.max_nodata:
        raise UnreadableImageError(
            f"{nodata:.0%} of its pixels have no value in some band, more than data.max_nodata "
            f"({layout.max_nodata:.0%})"
        )
    height, width = max(one.values_bHW.shape[1:] for one in of_file)
    kinds = ", ".join(dict.fromkeys(one.dtype for one in of_file))
    mode = f"{len(layout.bands)} bands of {kinds}"
    return BandChip(levels_SSC, width, height, of_file[0].bits, mode, nodata)


def unchanged(value_SS: Floats, valid_SS: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
    """The resize of a chip whose samples have its size already."""
    return value_SS, valid_SS


def band_levels(
    found: Mapping[str, tuple[Samples, int]], layout: BandLayout, size: int, resized: Resize
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.bool_]]:
    """The levels of a chip from the samples of its bands.

    Args:
        found: samples, and the band's position in them, by the band's name.
        layout: the bands.
        size: side of the chip in pixels.
        resized: gives values and their validity in that size, (size, size).

    Returns:
        Levels, (size, size, C); whether a pixel has a value in all bands of files, (size, size).

    Raises:
        UnreadableImageError: when samples are no levels, or values are far from the range.
    """
    levels_SSC = np.empty((size, size, len(layout.bands)), layout.dtype)
    values: dict[str, Floats] = {}
    complete_SS = np.ones((size, size), bool)
    for channel, (band, limits) in enumerate(zip(layout.bands, layout.ranges, strict=True)):
        if band.expression is None:
            samples, position = found[band.name]
            _require_levels(band, samples, layout)
            stored_HW = samples.values_bHW[position]
            value_HW = (
                stored_HW if (band.scale, band.offset) == (1, 0) else stored_HW * band.scale + band.offset
            )
            value_HW = value_HW.astype(np.float32, copy=False)
            if samples.dtype.startswith("float"):
                _require_unit(band, value_HW[samples.valid_bHW[position]], limits)
            value_SS, valid_SS = resized(value_HW, samples.valid_bHW[position])
            complete_SS &= valid_SS
        else:
            value_SS = evaluate(parse_expression(band.expression, band.name), values)
            valid_SS = np.isfinite(value_SS)
        values[band.name] = np.where(valid_SS, value_SS, np.nan).astype(np.float32)
        levels_SSC[..., channel] = _levels(value_SS, valid_SS, limits, layout)
    return levels_SSC, complete_SS


def _require_levels(band: BandConfig, samples: Samples, layout: BandLayout) -> None:
    """Check that samples without a range are levels."""
    if band.range is None and not (samples.dtype.startswith("uint") and samples.bits <= _bits(layout)):
        raise UnreadableImageError(
            f"{band.name} has samples of type {samples.dtype}, which are no levels of {layout.dtype}: set "
            "its range in data.bands"
        )


def _bits(layout: BandLayout) -> int:
    return 8 * np.dtype(layout.dtype).itemsize


def _require_unit(band: BandConfig, values_n: Floats, limits: tuple[float, float]) -> None:
    """Refuse floating-point values most of which are far from the declared range.

    Raises:
        FarFromRangeError: naming the band.
    """
    low, high = limits
    width = high - low
    far = (values_n < low - width) | (values_n > high + width)
    if len(values_n) and far.mean() > HALF:
        raise FarFromRangeError(
            f"{band.name} has values around {float(np.median(values_n)):.4g}, far outside its range {low:g} "
            f"to {high:g}: correct its scale or range in data.bands"
        )


def _resized(value_HW: Floats, valid_HW: NDArray[np.bool_], size: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Values at the chip's size, and whether each pixel has one."""
    if value_HW.shape == (size, size):
        return value_HW, valid_HW
    if valid_HW.all():
        return _resize(value_HW, size), np.ones((size, size), bool)
    weight_SS = _resize(valid_HW.astype(np.float32), size)
    weighted_SS = _resize(np.where(valid_HW, value_HW, 0).astype(np.float32), size)
    mean_SS = weighted_SS / np.maximum(weight_SS, np.float32(1e-6))
    return mean_SS.astype(np.float32, copy=False), weight_SS >= HALF


def _resize(value_HW: Floats, size: int) -> Floats:
    image = Image.fromarray(np.ascontiguousarray(value_HW))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _levels(
    value_SS: Floats, valid_SS: NDArray[np.bool_], limits: tuple[float, float], layout: BandLayout
) -> NDArray[np.unsignedinteger]:
    low, high = limits
    filled_SS = value_SS
    if not valid_SS.all():
        mean = value_SS[valid_SS].mean(dtype=np.float64) if valid_SS.any() else low
        filled_SS = np.where(valid_SS, value_SS, mean)
    scaled_SS = (filled_SS.astype(np.float64) - low) * (layout.highest / (high - low))
    return np.clip(np.rint(scaled_SS), 0, layout.highest).astype(layout.dtype)


UNARY: dict[str, Callable[[Floats], Floats]] = {"abs": np.abs, "sqrt": np.sqrt, "log": np.log}
BINARY: dict[str, Callable[[Floats, Floats], Floats]] = {"min": np.minimum, "max": np.maximum}
OPERATORS: dict[type[ast.operator], Callable[[Floats, Floats], Floats]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}


def evaluate(tree: ast.expr, values: Mapping[str, Floats]) -> Floats:
    """The value of a tree of :func:`~canopy.config.band_expression.parse_expression`.

    Args:
        tree: the tree.
        values: values by name, all of one shape.

    Returns:
        float32 of that shape; NaN or infinite where the expression has no value.
    """
    with np.errstate(all="ignore"):
        result = np.asarray(_value(tree, values), np.float32)
    return np.broadcast_to(result, next(iter(values.values())).shape)


def _value(node: ast.expr, values: Mapping[str, Floats]) -> Floats:
    match node:
        case ast.Constant(value=number):
            return np.asarray(number, np.float32)
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(op=sign, operand=operand):
            value = _value(operand, values)
            return np.negative(value) if isinstance(sign, ast.USub) else value
        case ast.BinOp(op=operator, left=left, right=right):
            return OPERATORS[type(operator)](_value(left, values), _value(right, values))
    call = cast(ast.Call, node)
    name, given = cast(ast.Name, call.func).id, [_value(argument, values) for argument in call.args]
    return UNARY[name](given[0]) if name in UNARY else BINARY[name](given[0], given[1])
