"""Reads the images of a request: multipart or JSON, every limit checked before an image is decoded."""

from __future__ import annotations

import base64
import binascii
import io
import struct
import warnings
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from PIL import Image
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from canopy.data.raster.formats import PILLOW_FORMATS, FileKind, file_kind
from canopy.errors import printable
from canopy.inference.service.problems import RequestError
from canopy.inference.service.schemas import PredictRequest
from canopy.inference.service.settings import ServiceOptions

MULTIPART, JSON = "multipart/form-data", "application/json"
FIELD = "images"
"""Name of the multipart field that holds an image."""
KINDS = "JPEG, PNG, WebP or TIFF"
ACCEPTED = (FileKind.JPEG, FileKind.PNG, FileKind.WEBP, FileKind.TIFF)
HEADER_FORMATS = PILLOW_FORMATS | {FileKind.TIFF: ("TIFF",)}
"""Pillow's names of each kind; it reads only headers here."""
LONGEST_NAME = 255
PNG_SIZE_AT = 16
"""Offset of width and height in a PNG."""


@dataclass(frozen=True)
class Upload:
    """One image of a request.

    Args:
        name: name that the client gave it, or its number.
        data: the file.
    """

    name: str
    data: bytes


async def read_uploads(request: Request, options: ServiceOptions) -> tuple[str | None, list[Upload]]:
    """The name of the wanted model, if the body has one, and the images.

    Raises:
        RequestError: 400, 413, 415 or 422: what is wrong with the request.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in (MULTIPART, JSON):
        need, remedy = f"must be {MULTIPART} or {JSON}", f"Send images as {MULTIPART}, field {FIELD}."
        raise RequestError(415, "Content-Type", need, content_type or "none", remedy)
    body = await read_body(request, options.max_body_bytes)
    model, uploads = (
        await from_multipart(body, request.headers, options)
        if content_type == MULTIPART
        else from_json(body, options)
    )
    if not uploads:
        raise RequestError(422, "The request", "must hold at least one image", "none", f"Send {KINDS} files.")
    for upload in uploads:
        check_header(upload, options.max_pixels)
    return model, uploads


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body, at most ``max_bytes`` of it.

    Raises:
        RequestError: 413 as soon as it is known to be larger.
    """

    def too_large(size: int) -> RequestError:
        need = f"must have at most {max_bytes:,} bytes"
        remedy = "Send fewer or smaller images."
        return RequestError(413, "The request", need, f"{size:,} or more", remedy, {"Connection": "close"})

    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large(int(declared))
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise too_large(size)
        parts.append(part)
    return b"".join(parts)


class CompleteParser(MultiPartParser):
    """Knows whether the body has come to its end: the parser alone would drop a file that is cut off."""

    complete = False

    def on_end(self) -> None:
        """The last boundary was read."""
        self.complete = True


async def from_multipart(
    body: bytes, headers: Headers, options: ServiceOptions
) -> tuple[str | None, list[Upload]]:
    """The model's name and the images of a multipart body.

    Raises:
        RequestError: 400 when it is malformed, 413 when it holds too many images, 422 for other fields.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    limit = options.max_images
    parser = CompleteParser(headers, stream(), max_files=limit + 1, max_fields=8)
    parser.spool_max_size = options.max_body_bytes  # the body is in memory already: no files on a disk
    try:
        form = await parser.parse()
        if not parser.complete:
            raise MultiPartException("its last boundary is missing")
    except (MultiPartException, FormParserError, UnicodeDecodeError) as error:
        reason = printable(getattr(error, "message", None) or str(error) or type(error).__name__)
        if "Too many files" in reason:
            raise too_many(limit + 2, limit) from None
        raise RequestError(400, "The body", "must be well-formed multipart", reason, "Correct it.") from None
    try:
        return await form_content(form, limit)
    finally:
        await form.close()


async def form_content(form: FormData, limit: int) -> tuple[str | None, list[Upload]]:
    """The model's name and the images of a parsed form.

    Raises:
        RequestError: 413 for more images than ``limit``, 422 for other fields.
    """
    model: str | None = None
    uploads: list[Upload] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) and name == FIELD:
            label = printable(value.filename or str(len(uploads)))[:LONGEST_NAME]
            uploads.append(Upload(label, await value.read()))
        elif name == "model" and isinstance(value, str):
            model = value
        else:
            need, remedy = f"must be files named {FIELD}, and model", f"Name every file {FIELD}."
            raise RequestError(422, "The fields", need, printable(name)[:LONGEST_NAME], remedy)
    if len(uploads) > limit:
        raise too_many(len(uploads), limit)
    return model, uploads


def from_json(body: bytes, options: ServiceOptions) -> tuple[str | None, list[Upload]]:
    """The model's name and the images of a JSON body.

    Raises:
        RequestError: 413 when it holds too many images, 422 when it has another form.
    """
    try:
        content = PredictRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        remedy = 'Send {"images": [{"id": "a.jpg", "data": "BASE64"}]}.'
        got = printable(f"{where or 'the whole'}: {first['msg']}")
        raise RequestError(422, "The body", "must be of the documented form", got, remedy) from None
    if len(content.images) > options.max_images:
        raise too_many(len(content.images), options.max_images)
    uploads = []
    for number, image in enumerate(content.images):
        name = printable(image.id if image.id is not None else str(number))
        try:
            uploads.append(Upload(name, base64.b64decode(image.data, validate=True)))
        except (binascii.Error, ValueError) as error:
            raise RequestError(422, f"Image {name}", "must be base64", error, "Encode the file.") from None
    return content.model, uploads


def too_many(count: int, limit: int) -> RequestError:
    """The error of a request with too many images."""
    need, remedy = f"must hold at most {limit} images", "Send several requests."
    return RequestError(413, "The request", need, f"{count} or more", remedy)


def check_header(upload: Upload, max_pixels: int) -> None:
    """Refuse an image by its first bytes: another kind of file, or too many pixels. It is not decoded.

    Raises:
        RequestError: 413 or 415.
    """
    kind = file_kind(upload.data)
    if kind not in ACCEPTED:
        got = kind.value if kind is not None else ("nothing" if not upload.data else "another kind of file")
        raise RequestError(415, f"Image {upload.name}", f"must be {KINDS}", got, "Convert it.")
    need, remedy = f"must have at most {max_pixels:,} pixels", "Send a smaller one."
    try:
        size = header_size(upload.data, kind)
    except Image.DecompressionBombError:
        raise RequestError(413, f"Image {upload.name}", need, "many more", remedy) from None
    if size is not None and size[0] * size[1] > max_pixels:
        got = f"{size[0]:,} by {size[1]:,}"
        raise RequestError(413, f"Image {upload.name}", need, got, remedy)


def header_size(data: bytes, kind: FileKind) -> tuple[int, int] | None:
    """Width and height according to the header; None where it cannot be read (the decoder will say why).

    Raises:
        PIL.Image.DecompressionBombError: for more than 180 megapixels in another file than a PNG.
    """
    if kind is FileKind.PNG and len(data) >= PNG_SIZE_AT + 8:  # Pillow would not say the size of a large one
        width, height = struct.unpack_from(">II", data, PNG_SIZE_AT)
        return width, height
    with warnings.catch_warnings(action="ignore"):
        try:
            with Image.open(io.BytesIO(data), formats=HEADER_FORMATS[kind]) as image:
                return image.size
        except Image.DecompressionBombError:
            raise
        except Exception:  # a parser of damaged headers raises anything
            return None
