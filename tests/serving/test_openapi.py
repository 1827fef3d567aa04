"""The OpenAPI document: every route is in it, every error has the form that it states, and schemathesis finds no difference."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdnas.serving.app import create_app
from kdnas.serving.contracts import CONTRACTS
from kdnas.serving.openapi import openapi
from kdnas.serving.options import ServeOptions
from kdnas.serving.refusals import BODIES, Kind, RefusalError, Shape
from kdnas.serving.service import Service

from ..bench.schemathesis_run import schemathesis
from .serve_fixture import Served, serving

FORM = "onnxruntime-f32"
KEY = "0123456789abcdef0123456789abcdef"


def test_the_document_has_every_route() -> None:
    routes = create_app(Service([], ServeOptions())).app.routes
    served = {(route.path, method) for route in routes for method in route.methods if method != "HEAD"}
    paths = openapi(CONTRACTS, False, ())["paths"]
    assert served == {(path, method.upper()) for path, methods in paths.items() for method in methods}


@pytest.mark.parametrize("shape", BODIES, ids=lambda shape: shape.__name__)
def test_errors_have_the_documented_form(shape: Shape) -> None:
    for kind in Kind:
        BODIES[shape].model_validate(orjson.loads(shape(RefusalError(kind, "why")).body), strict=True, extra="forbid")


def test_limits_of_numbers_are_documented() -> None:
    schemas = openapi(CONTRACTS, False, ())["components"]["schemas"]
    for name in ("EmbedRequest", "EmbeddingsRequest"):
        assert schemas[name]["properties"]["dimensions"]["anyOf"][0] == {"type": "integer", "minimum": 1}
    tokens = schemas["AnswerRequest"]["properties"]["max_answer_tokens"]
    assert (tokens["minimum"], tokens["maximum"]) == (1, 512)


def test_only_a_service_with_keys_documents_them() -> None:
    for keys in (False, True):
        document = openapi(CONTRACTS, keys, ())
        operation = document["paths"]["/embed"]["post"]
        assert ("401" in operation["responses"]) == ("security" in operation) == keys
        assert ("securitySchemes" in document["components"]) == keys
        assert "security" not in document["paths"]["/livez"]["get"]


@pytest.fixture(scope="module")
def many(classifier: Path, encoder: Path, tagger: Path, answerer: Path) -> Iterator[Served]:
    words = [word for name, folder in (("enc", encoder), ("ner", tagger), ("qa", answerer))
             for word in ("--model", f"{name}={folder}")]  # fmt: skip
    with serving(f"hap={classifier}", "--form", FORM, *words) as running:
        yield running


@pytest.mark.slow
def test_schemathesis_finds_no_difference(many: Served) -> None:
    pytest.importorskip("schemathesis")
    twice = "^/models/.*/(v1/.*|predict)$"  # the same endpoints without /models are enough here
    done = schemathesis(many.url, 5, "--seed", "0", "--exclude-path-regex", twice)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_schemathesis_finds_no_way_around_the_keys(classifier: Path, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    (tmp_path / "keys").write_text(KEY)
    with serving(f"hap={classifier}", "--form", FORM, "--key-file", tmp_path / "keys") as served:
        words = [word for path in ("/v1/entities", "/info", "/v1/reload")
                 for word in ("--include-path", path)]  # fmt: skip
        words += ["--header", f"Authorization: Bearer {KEY}", "--exclude-checks", "missing_required_header"]
        done = schemathesis(served.url, 3, "--seed", "0", *words)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/classify", {"text": "a", "truncate": "yes"}),
        ("/predict", {"inputs": "a", "raw_scores": 1}),
        ("/embed", {"inputs": "a", "dimensions": "5"}),
        ("/v1/answer", {"question": "a", "context": "b", "max_answer_tokens": "5"}),
        ("/api/v1/text/contents", {"contents": ["a"], "detector_params": {"threshold": "0.5"}}),
    ],
)
def test_values_of_another_type_are_refused(many: Served, path: str, body: dict[str, Any]) -> None:
    answer = many.client.post(path, json=body, headers={"detector-id": "hap"})
    assert answer.status_code == 422, answer.text


@pytest.mark.slow
def test_whole_numbers_may_have_a_decimal_point(many: Served) -> None:
    found = [
        many.client.post("/embed", json={"inputs": "a", "dimensions": size}).raise_for_status() for size in (5, 5.0)
    ]
    assert found[0].json() == found[1].json()
    assert many.client.post("/embed", json={"inputs": "a", "dimensions": 5.5}).status_code == 422
    assert many.client.post("/embed", json={"inputs": "a", "dimensions": 1e300}).status_code == 422


@pytest.mark.slow
def test_an_empty_header_names_no_model(many: Served) -> None:
    answer = many.client.post("/v1/classify", json={"text": "a"}, headers={"x-model": ""})
    assert answer.raise_for_status().json()["model"] == "hap"


@pytest.mark.slow
def test_a_detector_is_named_by_the_path_too(many: Served) -> None:
    path = "/models/ner/api/v1/text/contents"
    body = {"contents": ["Ada lives in London."], "detector_params": {"threshold": 0}}
    by_path = many.client.post(path, json=body).raise_for_status().json()
    by_header = many.client.post(path.removeprefix("/models/ner"), json=body, headers={"detector-id": "ner"})
    assert by_path == by_header.json()
    assert by_path[0][0]["detection_type"] == "ner"
