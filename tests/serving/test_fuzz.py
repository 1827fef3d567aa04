"""Random bodies for every endpoint: never a 5xx, and every answer is valid JSON of the contract's form."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from kdnas.serving.contracts import CONTRACTS
from kdnas.serving.refusals import BODIES

from .serve_fixture import Served, serving

pytestmark = pytest.mark.slow
MODELS = ("hap", "enc", "ner", "qa")

SCALARS = st.none() | st.booleans() | st.integers(-3, 2000) | st.floats() | st.text(max_size=12)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
TEXTS = st.text(max_size=80) | st.sampled_from(
    ["", " ", "a" * 300, "\u0301", "\U0001f469\u200d\U0001f467", "\x00", "สวัสดี " * 30]
)
MANY = st.lists(TEXTS, max_size=4)
FIELDS: dict[str, Any] = {
    "text": TEXTS,
    "texts": MANY,
    "inputs": TEXTS | MANY | st.lists(st.lists(TEXTS, max_size=3), max_size=3),
    "input": TEXTS | MANY,
    "contents": MANY,
    "question": TEXTS,
    "context": TEXTS,
    "questions": st.lists(st.fixed_dictionaries({"question": TEXTS, "context": TEXTS}), max_size=3),
    "model": st.sampled_from([*MODELS, "other"]),
    "too_long": st.sampled_from(["error", "truncate", "windows", "other"]),
    "truncate": st.booleans(),
    "label": st.sampled_from(["ok", "hap", "other"]),
    "dimensions": st.integers(-1, 40),
    "encoding_format": st.sampled_from(["float", "base64", "other"]),
    "normalize": st.booleans(),
    "raw_scores": st.booleans(),
    "max_answer_tokens": st.integers(-1, 600),
    "detector_params": st.dictionaries(st.sampled_from(["threshold", "labels", "x"]), SCALARS | MANY, max_size=2),
}


def fields(contract: Any) -> list[str]:
    """Names of the fields of a contract's bodies that the strategies know."""
    return sorted({name for kind in contract.requests for name in kind.model_fields} & set(FIELDS))


@pytest.fixture(scope="module")
def served(classifier: Path, encoder: Path, tagger: Path, answerer: Path) -> Iterator[Served]:
    words = [word for name, folder in (("enc", encoder), ("ner", tagger), ("qa", answerer))
             for word in ("--model", f"{name}={folder}")]  # fmt: skip
    with serving(f"hap={classifier}", "--form", "onnxruntime-f32", *words) as running:
        yield running


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.path)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_body_is_answered_with_a_server_error(served: Served, contract: Any, data: st.DataObject) -> None:
    shaped = st.fixed_dictionaries({}, optional={name: FIELDS[name] | VALUES for name in fields(contract)})
    body = data.draw(shaped | shaped | VALUES)
    headers = {"content-type": "application/json", "detector-id": data.draw(st.sampled_from([*MODELS, "other"]))}
    answer = served.client.post(contract.path, content=json.dumps(body).encode(), headers=headers)
    assert answer.status_code < 500, answer.text
    found = json.loads(answer.content, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    kind = contract.answer if answer.status_code == 200 else BODIES[contract.errors]
    TypeAdapter(kind).validate_python(found, strict=True, extra="forbid")


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(
    content=st.binary(max_size=60),
    kind=st.sampled_from(["application/json", "text/plain", "", "application/json; charset=x"]),
)
def test_no_bytes_are_answered_with_a_server_error(served: Served, content: bytes, kind: str) -> None:
    for contract in CONTRACTS:
        assert (
            400 <= served.client.post(contract.path, content=content, headers={"content-type": kind}).status_code < 500
        )
