"""The HTTP interface: paths, bodies, errors, headers. It knows no Ray."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files as package_files
from typing import Any, Protocol

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import canopy
from canopy.config import derive
from canopy.errors import FourPartError, printable
from canopy.inference.service import schemas
from canopy.inference.service.problems import RequestError
from canopy.inference.service.settings import ServiceOptions
from canopy.inference.service.tokens import is_authorized
from canopy.inference.service.uploads import FIELD, JSON, MULTIPART, Upload, read_uploads

access_log = logging.getLogger("canopy.access")
PATHS = ("/", "/v1/predict", "/v1/explain", "/v1/model", "/healthz", "/readyz", "/openapi.json")
PNG: dict[str, Any] = {
    "description": "The chip in gray, warm where something speaks for the label, cool where against it.",
    "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
}
STATUSES = {
    400: "The body is malformed.",
    401: "The token is missing or wrong.",
    404: "There is no such model.",
    413: "The body, an image or the number of images is too large.",
    415: "The content type or a file is of another kind.",
    422: "The body has another form, or an image cannot be read.",
    429: "Too many requests wait.",
    503: "No replica answers.",
    504: "The answer took too long.",
}


class Backend(Protocol):
    """What the interface needs: :class:`canopy.inference.service.gateway.Gateway`."""

    options: ServiceOptions
    digest: str | None

    @property
    def names(self) -> list[str]:
        """Names of all models; the first is the default."""

    def chosen(self, name: str | None) -> str:
        """The name of a model that is served."""

    async def facts(self, name: str) -> Any:
        """What is known of a model."""

    async def predict(self, name: str, uploads: list[Upload]) -> Any:
        """Facts, and probabilities and decisions of each image."""

    async def explain(self, name: str, upload: Upload, label: str) -> bytes:
        """The evidence for a label, as a PNG."""

    async def not_ready(self) -> str | None:
        """Why the service cannot predict now; None when it can."""


def make_app(backend: Backend) -> FastAPI:
    """The application over a backend."""
    app = FastAPI(
        title="Canopy",
        version=canopy.__version__,
        description="Labels of aerial chips by a tuned ensemble.",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    guard = [Depends(authorization(backend.digest))]
    if backend.digest is not None:
        guard.append(Depends(HTTPBearer(auto_error=False, description="The token of the service.")))

    add_prediction_paths(app, backend, guard)
    add_status_paths(app, backend, guard)
    add_error_handlers(app)
    app.add_middleware(Observer)
    return app


def add_prediction_paths(app: FastAPI, backend: Backend, guard: list[Any]) -> None:
    """Add the paths that take images; ``guard``: dependencies that check the token."""

    @app.post(
        "/v1/predict",
        dependencies=guard,
        response_model=schemas.PredictResponse,
        responses=responses(400, 401, 404, 413, 415, 422, 429, 503, 504),
        openapi_extra={"requestBody": request_body(backend.options.max_images)},
        summary="Predict the labels of images",
    )
    async def predict(request: Request) -> Any:
        model, uploads = await read_uploads(request, backend.options)
        name = backend.chosen(model)
        request.state.images = len(uploads)
        facts, answers = await backend.predict(name, uploads)
        return JSONResponse(
            {"model": name, "version": facts.version, "results": results(uploads, facts, answers)}
        )

    @app.post(
        "/v1/explain",
        dependencies=guard,
        response_class=Response,
        responses=responses(400, 401, 404, 413, 415, 422, 429, 503, 504) | {200: PNG},
        openapi_extra={"requestBody": request_body(1)},
        summary="Where in an image the evidence for a label is",
    )
    async def explain(request: Request, label: str) -> Response:
        model, uploads = await read_uploads(request, derive(backend.options, max_images=1))
        request.state.images = 1
        picture = await backend.explain(backend.chosen(model), uploads[0], label)
        return Response(picture, media_type="image/png")


def add_status_paths(app: FastAPI, backend: Backend, guard: list[Any]) -> None:
    """Add the paths about the model and the service, and the web page."""

    @app.get(
        "/v1/model",
        dependencies=guard,
        response_model=schemas.ModelResponse,
        responses=responses(401, 404, 422, 429, 503, 504),
        summary="Labels, thresholds, members and scores of a model",
    )
    async def model(model: str | None = None) -> Any:
        name = backend.chosen(model)
        facts = await backend.facts(name)
        fields = {**vars(facts), "model": name, "models": backend.names, "canopy": canopy.__version__}
        return JSONResponse(schemas.ModelResponse.model_validate(fields).model_dump(mode="json"))

    @app.get("/healthz", response_model=schemas.Health, summary="Whether the process lives")
    async def healthz() -> Any:
        return {"status": "ok"}

    @app.get(
        "/readyz",
        response_model=schemas.Health,
        responses={503: {"model": schemas.Health, "description": "A model does not answer."}},
        summary="Whether every model answers",
    )
    async def readyz() -> Any:
        reason = await backend.not_ready()
        return JSONResponse({"status": reason or "ok"}, 200 if reason is None else 503)

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(page_html(), headers={"Content-Security-Policy": page_policy()})


def authorization(digest: str | None) -> Callable[[Request], Awaitable[None]]:
    """A dependency that refuses requests without the token."""

    async def check(request: Request) -> None:
        if not is_authorized(digest, request.headers.get("authorization")):
            got = "another one" if "authorization" in request.headers else "none"
            remedy, headers = "Send Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"}
            raise RequestError(401, "The token", "must be that of the service", got, remedy, headers)

    return check


def results(uploads: list[Upload], facts: Any, answers: list[Any]) -> list[dict[str, Any]]:
    """The result of each image, as ``schemas.ImageResult``."""
    found = []
    for upload, (probs_K, decisions_K) in zip(uploads, answers, strict=True):
        pairs = zip(facts.labels, probs_K.tolist(), strict=True)
        chosen = [name for name, decided in zip(facts.labels, decisions_K.tolist(), strict=True) if decided]
        probabilities = {name: round(value, 6) for name, value in pairs}
        found.append({"id": upload.name, "labels": chosen, "probabilities": probabilities})
    return found


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documented errors of a path."""
    return {status: {"model": schemas.Problem, "description": STATUSES[status]} for status in statuses}


def request_body(max_images: int) -> dict[str, Any]:
    """The documented body of a prediction: it is read by hand, to stop as soon as a limit is passed."""
    multipart = {
        "type": "object",
        "required": [FIELD],
        "additionalProperties": False,
        "properties": {
            FIELD: {
                "type": "array",
                "minItems": 1,
                "maxItems": max_images,
                "items": {"type": "string", "format": "binary"},
                "description": "One or more files: JPEG, PNG, WebP or TIFF.",
            },
            "model": {"type": "string", "description": "Name of the model."},
        },
    }
    schema = schemas.PredictRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    encoded = schema.pop("$defs")["EncodedImage"]
    schema["properties"]["images"] |= {"items": encoded, "maxItems": max_images}
    return {"required": True, "content": {MULTIPART: {"schema": multipart}, JSON: {"schema": schema}}}


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error in the form of ``schemas.Problem``."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> JSONResponse:
        return problem(error.status, error, error.headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        remedy = f"Use {', '.join(PATHS[:4])}."
        got = f"{request.method} {printable(request.url.path)[:200]}"
        need = {404: "must be one of the service", 405: "must be called with another method"}
        parts = FourPartError("The path", need.get(error.status_code, "was refused"), got, remedy)
        return problem(error.status_code, parts, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where, got = ".".join(map(str, first["loc"])), str(first["msg"])
        return problem(422, FourPartError(where, "must be of the documented form", got, "Correct it."))

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        logging.getLogger(__name__).error("a request failed", exc_info=error)
        need, remedy = "must not fail", "Report it with the time; the log of the service has the reason."
        return problem(500, FourPartError("The service", need, "an internal error", remedy))


def problem(status: int, error: FourPartError, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as a response."""
    parts = {name: printable(str(getattr(error, name))) for name in ("thing", "constraint", "got", "remedy")}
    return JSONResponse({"error": str(error), **parts}, status, headers)


class Observer:
    """Middleware: the access log, the metrics, and headers that every response has.

    The log has no names or content of images.
    """

    def __init__(self, app: ASGIApp) -> None:
        from canopy.inference.service.metrics import HttpMetrics

        self._app, self._metrics = app, HttpMetrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            seconds = time.perf_counter() - start
            path = scope["path"] if scope["path"] in PATHS else "other"
            self._metrics.request(path, status, seconds)
            images = scope.get("state", {}).get("images", 0)
            access_log.info(
                "%s %s %d images=%d ms=%.1f", scope["method"], path, status, images, 1e3 * seconds
            )


HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
]


@cache
def page_html() -> str:
    """The web page: one file, its style and script inside."""
    folder = package_files("canopy.inference.service")
    html = (folder / "page.html").read_text(encoding="utf-8")
    style = (folder / "page.css").read_text(encoding="utf-8")
    script = (folder / "page.js").read_text(encoding="utf-8")
    return html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)


@cache
def page_policy() -> str:
    """The page's content security policy: its own script, its own service, pictures that the user drops."""
    found = re.search(r"<script>(.*?)</script>", page_html(), re.DOTALL)
    assert found is not None
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
