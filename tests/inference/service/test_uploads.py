"""Requests' bodies: both forms are read, every limit is checked before an image is decoded."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request
from tests.bands import layout, noise, write_raster
from tests.inference.service.pictures import animation, gigapixels, picture

from canopy.config import BandConfig
from canopy.data.raster.errors import UnreadableImageError
from canopy.data.raster.formats import FileKind
from canopy.inference.chips import ChipDecoder
from canopy.inference.service.problems import RequestError
from canopy.inference.service.settings import ServiceOptions
from canopy.inference.service.uploads import Upload, header_size, read_uploads

OPTIONS = ServiceOptions(max_body_mb=0.1, max_images=3, max_megapixels=0.01)
BOUNDARY = "b0undary"


def request(body: bytes, content_type: str, length: int | None = None, part: int = 1000) -> Request:
    """A request whose body arrives in parts."""
    parts = [body[start : start + part] for start in range(0, len(body), part)] or [b""]
    state = {"next": 0}

    async def receive() -> dict[str, Any]:
        n = state["next"]
        state["next"] += 1
        return {"type": "http.request", "body": parts[n], "more_body": n + 1 < len(parts)}

    headers = [(b"content-type", content_type.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"", "headers": headers}
    return Request(scope, receive)


def multipart(*fields: tuple[str, str | None, bytes]) -> bytes:
    """A multipart body of (name, file name, content)."""
    lines = []
    for name, filename, content in fields:
        file = "" if filename is None else f'; filename="{filename}"'
        lines.append(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode())
        lines.append(content + b"\r\n")
    return b"".join([*lines, f"--{BOUNDARY}--\r\n".encode()])


def read(body: bytes, content_type: str, **options: Any) -> tuple[str | None, list[Upload]]:
    return asyncio.run(read_uploads(request(body, content_type, **options), OPTIONS))


MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def test_multipart_and_json_give_the_same_images() -> None:
    files = {"a.png": picture(1), "b.jpg": picture(2, kind="JPEG"), "c.webp": picture(3, kind="WEBP")}
    form = multipart(*(("images", name, data) for name, data in files.items()), ("model", None, b"m"))
    images = [{"id": name, "data": base64.b64encode(data).decode()} for name, data in files.items()]
    expected = ("m", [Upload(name, data) for name, data in files.items()])
    assert read(form, MULTIPART) == expected
    assert (
        read(json.dumps({"images": images, "model": "m"}).encode(), "application/json; charset=utf-8")
        == expected
    )


def test_images_without_a_name_get_their_number() -> None:
    data = base64.b64encode(picture(0, kind="TIFF")).decode()
    _, uploads = read(json.dumps({"images": [{"data": data}, {"data": data}]}).encode(), "application/json")
    assert [upload.name for upload in uploads] == ["0", "1"]


def as_json(content: Any) -> tuple[bytes, str]:
    return json.dumps(content).encode(), "application/json"


def as_form(*fields: tuple[str, str | None, bytes]) -> tuple[bytes, str]:
    return multipart(*fields), MULTIPART


PNG = base64.b64encode(picture()).decode()


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ((b"x", "text/plain"), 415, "Content-Type must be multipart/form-data or application/json"),
        ((b"x", ""), 415, "Got: none"),
        ((b"{", "application/json"), 422, "must be of the documented form"),
        ((b"\xff\xfe", "application/json"), 422, "must be of the documented form"),
        (as_json([]), 422, "must be of the documented form"),
        (as_json({"images": []}), 422, "images"),
        (as_json({"images": [{"data": PNG, "x": 1}]}), 422, "images.0.x"),
        (as_json({"images": [{"data": "%%%"}]}), 422, "Image 0 must be base64"),
        (as_json({"images": [{"data": PNG}] * 4}), 413, "at most 3 images"),
        (as_form(), 422, "must hold at least one image"),
        (as_form(("file", "a.png", picture())), 422, "must be files named images"),
        (as_form(("images", None, b"text")), 422, "must be files named images"),
        (as_form(*[("images", "a.png", b"x")] * 4), 413, "at most 3 images"),
        (as_form(*[("images", "a.png", b"x")] * 900), 413, "at most 3 images"),
        ((b"no boundary here", MULTIPART), 400, "well-formed multipart"),
        ((b"x", "multipart/form-data"), 400, "well-formed multipart"),
        ((multipart(("images", "a.png", picture()))[:200], MULTIPART), 400, "well-formed multipart"),
        (
            as_form(("images", "a.png", b"")),
            415,
            r"Image a\.png must be JPEG, PNG, WebP or TIFF. Got: nothing",
        ),
        (as_form(("images", "a.png", b"GIF89a" + bytes(99))), 415, "Got: GIF"),
        (as_form(("images", "a.png", b"<svg/>")), 415, "another kind of file"),
        (as_form(("images", "a\nb.png", b"<svg/>")), 415, "Image "),
        (
            as_form(("images", "a.png", picture(size=(200, 100)))),
            413,
            "at most 10,000 pixels. Got: 200 by 100",
        ),
        (as_form(("images", "a.png", gigapixels())), 413, "at most 10,000 pixels"),
    ],
)
def test_what_is_wrong_is_said_with_its_status(given: tuple[bytes, str], status: int, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        read(*given)
    assert caught.value.status == status, str(caught.value)
    assert "\n" not in str(caught.value)


async def received(sent: Any) -> Any:
    return await sent.receive()


def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    for length in (None, 200_000, 5):
        sent = request(bytes(200_000), MULTIPART, length)
        with pytest.raises(RequestError, match="at most 100,000 bytes") as caught:
            asyncio.run(read_uploads(sent, OPTIONS))
        assert caught.value.status == 413
        assert asyncio.run(received(sent))["more_body"], "the rest is still there"


def test_headers_are_read_without_decoding() -> None:
    for kind, name in (
        (FileKind.PNG, "PNG"),
        (FileKind.JPEG, "JPEG"),
        (FileKind.WEBP, "WEBP"),
        (FileKind.TIFF, "TIFF"),
    ):
        assert header_size(picture(kind=name), kind) == (40, 30)
    assert header_size(gigapixels(), FileKind.PNG) == (50_000, 40_000)
    assert header_size(gigapixels(2**31 - 1, 2**31 - 1), FileKind.PNG) == (2**31 - 1, 2**31 - 1)
    assert header_size(b"\xff\xd8\xff", FileKind.JPEG) is None
    assert header_size(animation("WEBP"), FileKind.WEBP) == (8, 8)


def test_a_tiff_of_many_bands_is_handed_to_the_models_decoder(tmp_path: Path) -> None:
    bands = layout(*(BandConfig(name=f"b{n}", band=n) for n in range(1, 6)))
    path = write_raster(tmp_path / "chip.tif", noise(5, 16), compress="deflate")
    data, decoder = path.read_bytes(), ChipDecoder(16, layout=bands)
    body = multipart(("images", "chip.tif", data))
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    _, (upload,) = asyncio.run(read_uploads(request(body, kind), OPTIONS))
    assert upload.data == data
    np.testing.assert_array_equal(decoder.chip(upload.data), decoder.chip(str(path)))
    assert decoder.chip(upload.data).shape == (16, 16, 5)
    with pytest.raises(UnreadableImageError, match="band"):
        ChipDecoder(16, layout=layout(BandConfig(name="far", band=6))).chip(upload.data)
