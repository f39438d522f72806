"""The HTTP interface on the real server: answers, and one clear error for each bad request."""

from __future__ import annotations

import base64
import threading
import time
import urllib.request
from typing import Any

import numpy as np
import pytest
import ray
import requests
from tests.inference.service.conftest import TOKEN, Service, headers
from tests.inference.service.pictures import animation, gigapixels, picture

import canopy
from canopy.storage.run_dir import RunDir

FILES = [
    picture(1),
    picture(2, kind="JPEG"),
    picture(3, (64, 64), "WEBP"),
    picture(4, (100, 20), "TIFF"),
]
pytestmark = pytest.mark.slow


def error_of(response: requests.Response, status: int) -> str:
    """The sentence of an error, after a check of its form."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "thing", "constraint", "got", "remedy"}
    for part in ("thing", "constraint", "remedy"):
        assert body[part] in body["error"]
    return str(body["error"])


def test_predictions_are_those_of_the_model(served: Service, finished: RunDir) -> None:
    expected = canopy.load(finished.root, device="cpu").predict(FILES)
    encoded = [{"id": f"{n}.img", "data": base64.b64encode(data).decode()} for n, data in enumerate(FILES)]
    for response in (served.upload(*FILES), served.post(json={"images": encoded})):
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["model"] == "default"
        assert [result["id"] for result in body["results"]] == [f"{n}.img" for n in range(4)]
        for n, result in enumerate(body["results"]):
            assert tuple(result["labels"]) == expected.predicted[n]
            assert list(result["probabilities"]) == list(expected.labels.names)
            np.testing.assert_allclose(
                list(result["probabilities"].values()), expected.probs_NK[n], atol=1e-4
            )


def test_many_clients_get_their_own_answers(served: Service, finished: RunDir) -> None:
    files = [picture(seed, (32, 32)) for seed in range(40)]
    expected_NK = canopy.load(finished.root, device="cpu").predict(files).probs_NK
    found: dict[int, Any] = {}

    def ask(n: int) -> None:
        found[n] = served.upload(files[n], data={"model": "other"})

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(files))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, response in found.items():
        assert response.status_code == 200, response.text
        (result,) = response.json()["results"]
        np.testing.assert_allclose(list(result["probabilities"].values()), expected_NK[n], atol=1e-4)
    assert len(found) == 40


def test_the_model_says_what_it_is(served: Service, finished: RunDir) -> None:
    body = served.get("/v1/model").json()
    model = canopy.load(finished.root, device="cpu")
    assert body["labels"] == list(model.labels.names)
    assert body["thresholds"] == pytest.approx(
        dict(zip(model.labels.names, model.thresholds.tolist(), strict=True))
    )
    assert body["models"] == ["default", "other"]
    assert set(body["members"]) == set(model.members)
    assert body["version"] == served.get("/v1/model", params={"model": "other"}).json()["version"]
    assert "must be the name of a model" in error_of(served.get("/v1/model", params={"model": "x"}), 404)


def test_evidence_is_a_picture(served: Service, finished: RunDir) -> None:
    import io

    from PIL import Image

    def ask(label: str, *files: bytes) -> requests.Response:
        parts = [("images", (f"{n}.png", data)) for n, data in enumerate(files)]
        where = f"{served.url}/v1/explain"
        return requests.post(where, params={"label": label}, files=parts, headers=headers(TOKEN), timeout=60)

    found = ask("rare", FILES[0])
    assert (found.status_code, found.headers["Content-Type"]) == (200, "image/png")
    expected = canopy.load(finished.root, device="cpu").explain(FILES[0]).overlay("rare")
    np.testing.assert_allclose(np.asarray(Image.open(io.BytesIO(found.content))), expected, atol=2)
    assert "must be a label of the model" in error_of(ask("none", FILES[0]), 404)
    assert "at most 1 images" in error_of(ask("rare", *FILES), 413)
    assert "must be readable" in error_of(ask("rare", FILES[0][:200]), 422)


def test_health_needs_no_token_and_everything_else_does(served: Service) -> None:
    assert served.get("/healthz", token=None).json() == {"status": "ok"}
    assert served.get("/readyz", token=None).json() == {"status": "ok"}
    for token in (None, "wrong-token-of-a-client", ""):
        for response in (served.get("/v1/model", token), served.upload(picture(), token=token)):
            assert "The token must be that of the service" in error_of(response, 401)
            assert response.headers["WWW-Authenticate"] == "Bearer"


BAD: list[tuple[dict[str, Any], int, str]] = [
    ({"data": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "Content-Type must be"),
    ({"data": b"{", "headers": {"Content-Type": "application/json"}}, 422, "documented form"),
    ({"json": {"images": [{"data": "%"}]}}, 422, "must be base64"),
    ({"json": {"images": [{"data": "AAAA"}] * 10_000}}, 413, "at most 8 images. Got: 10000"),
    ({"files": [("images", ("a", picture()))] * 9}, 413, "at most 8 images"),
    ({"files": [("images", ("a", b"x"))] * 5000}, 413, "at most 8 images"),
    ({"files": [("images", ("a", bytes(5_000_000)))]}, 413, "at most 4,000,000 bytes"),
    ({"files": [("images", ("a.png", gigapixels()))]}, 413, "50,000 by 40,000"),
    ({"files": [("images", ("a.png", picture()[:200]))]}, 422, "must be readable. Got: damaged or truncated"),
    ({"files": [("images", ("a.jpg", picture(kind="JPEG")[:300]))]}, 422, "truncated"),
    ({"files": [("images", ("a.webp", animation("WEBP")))]}, 422, "several frames"),
    ({"files": [("images", ("a.png", animation("PNG")))]}, 422, "several frames"),
    ({"files": [("images", ("a.tif", animation("TIFF")))]}, 422, "a.tif must be readable"),
    ({"files": [("images", ("a.gif", animation("GIF")))]}, 415, "Got: GIF"),
    ({"files": [("images", ("a.txt", b"text"))]}, 415, "must be JPEG, PNG, WebP or TIFF"),
    ({"files": [("other", ("a.png", picture()))]}, 422, "must be files named images"),
    (
        {"files": [("images", ("a.png", picture()))], "data": {"model": "none"}},
        404,
        "must be the name of a model",
    ),
]


@pytest.mark.parametrize(("request_", "status", "message"), BAD, ids=range(len(BAD)))
def test_each_bad_request_has_one_clear_error(
    request_: dict[str, Any], status: int, message: str, served: Service
) -> None:
    assert message in error_of(served.post(**request_), status)
    assert served.upload(FILES[0]).status_code == 200, "nothing else is disturbed"


def test_a_bad_image_does_not_spoil_requests_beside_it(served: Service) -> None:
    responses: list[requests.Response] = []

    def ask(data: bytes) -> None:
        responses.append(served.upload(data))

    datas = [picture(n) if n % 2 else picture(n)[:150] for n in range(20)]
    threads = [threading.Thread(target=ask, args=(data,)) for data in datas]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(response.status_code for response in responses) == [200] * 10 + [422] * 10


def test_paths_and_methods_that_are_none(served: Service) -> None:
    assert "The path must be one of the service" in error_of(served.get("/v2/predict"), 404)
    assert "must be called with another method" in error_of(served.get("/v1/predict"), 405)
    assert served.get("/docs").status_code == 404


def test_headers_allow_no_other_site(served: Service) -> None:
    response = requests.options(
        f"{served.url}/v1/predict",
        headers={"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"},
        timeout=30,
    )
    assert response.status_code == 405
    for answer in (response, served.upload(FILES[0])):
        assert not any(name.lower().startswith("access-control-") for name in answer.headers)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    page = served.get("/", token=None)
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "http://" not in page.text
    assert "https://" not in page.text


def test_the_openapi_document_has_examples_and_all_errors(served: Service) -> None:
    document = served.get("/openapi.json", token=None).json()
    predict = document["paths"]["/v1/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert {"200", "400", "401", "404", "413", "415", "422", "429", "503", "504"} <= set(predict["responses"])
    (example,) = predict["requestBody"]["content"]["application/json"]["schema"]["examples"]
    assert served.post(json=example).status_code == 200
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert document["components"]["schemas"]["PredictResponse"]["examples"]


def test_metrics_reach_prometheus(served: Service) -> None:
    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    page = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    wanted = (
        "canopy_serve_request_seconds",
        "canopy_serve_batch_size",
        "canopy_serve_images",
        "canopy_serve_positives",
    )
    end, text = time.monotonic() + 60, ""
    while time.monotonic() < end and not all(f"ray_{name}" in text for name in wanted):
        served.upload(*FILES)
        time.sleep(1)
        with urllib.request.urlopen(page, timeout=10) as answer:
            text = answer.read().decode()
    lines = [line for line in text.splitlines() if line.startswith("ray_canopy_serve_")]
    for name in wanted:
        assert any(line.startswith(f"ray_{name}") for line in lines), name
    assert any('path="/v1/predict"' in line for line in lines)


def test_no_request_that_the_schema_allows_or_forbids_fails_the_server(served: Service) -> None:
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    # Not positive_data_acceptance: a schema cannot say that a text is an image.
    held = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
        checks.negative_data_rejection,
    ]
    statuses: set[tuple[str, int]] = set()
    operations: Any = schemathesis.openapi.from_url(f"{served.url}/openapi.json").get_all_operations()
    for result in operations:
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=60,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def send(case: Any) -> None:
            response = case.call(headers=headers(TOKEN), timeout=60)
            statuses.add((f"{case.method} {case.path}", response.status_code))
            case.validate_response(response, checks=held)

        send()
    assert {("POST /v1/predict", 422), ("GET /v1/model", 200), ("GET /readyz", 200)} <= statuses
    assert max(status for _, status in statuses) < 500
