"""The contracts over a real socket, with all kinds of models in one process."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from kdnas.export.session import Session
from kdnas.export.spans import Answerer, text_logits, token_scores

from .serve_fixture import Served, serving, wait_until

pytestmark = pytest.mark.slow
FORM = "onnxruntime-f32"


@pytest.fixture(scope="module")
def many(classifier: Path, encoder: Path, tagger: Path, answerer: Path, regressor: Path) -> Iterator[Served]:
    words = [word for name, folder in (("enc", encoder), ("ner", tagger), ("qa", answerer), ("number", regressor))
             for word in ("--model", f"{name}={folder}")]  # fmt: skip
    with serving(f"hap={classifier}", "--form", FORM, *words) as running:
        wait_until(lambda: running.client.get("/readyz").status_code == 200)
        yield running


def post(served: Served, path: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return served.client.post(path, json=body, headers=headers)


def good(served: Served, path: str, headers: dict[str, str] | None = None, **body: Any) -> Any:
    return post(served, path, headers, **body).raise_for_status().json()


def test_tei_predict(many: Served, classifier: Path) -> None:
    session = Session(classifier, FORM, 1)
    expected = session.predict(["Go away."])[0]
    rows = good(many, "/predict", inputs="Go away.")
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert {row["label"]: row["score"] for row in rows} == pytest.approx(
        dict(zip(["ok", "hap"], expected, strict=True)), abs=1e-5
    )
    batch = good(many, "/predict", inputs=[["Go away."], ["Go away.", "Now."]])
    assert batch[0] == rows
    pair = session.predict([("Go away.", "Now.")])[0]
    assert good(many, "/predict", inputs=["Go away.", "Now."]) == batch[1]  # a list of two strings is a pair
    assert {row["label"]: row["score"] for row in batch[1]}["hap"] == pytest.approx(pair[1], abs=1e-5)
    raw = {row["label"]: row["score"] for row in good(many, "/predict", inputs="Go away.", raw_scores=True)}
    assert raw == pytest.approx(dict(zip(["ok", "hap"], text_logits(session, ["Go away."])[0], strict=True)), abs=1e-4)


def test_tei_embed(many: Served, encoder: Path) -> None:
    texts = ["Go away.", "You are very kind."]
    expected = Session(encoder, FORM, 1).predict(texts)
    np.testing.assert_allclose(good(many, "/embed", inputs=texts), expected, atol=1e-5)
    one = good(many, "/embed", inputs=texts[0])
    np.testing.assert_allclose(one, expected[:1], atol=1e-5)
    plain = np.asarray(good(many, "/embed", inputs=texts, normalize=False))
    assert abs(np.linalg.norm(plain, axis=1) - 1).min() > 1e-3
    np.testing.assert_allclose(plain / np.linalg.norm(plain, axis=1, keepdims=True), expected, atol=1e-5)
    short = np.asarray(good(many, "/embed", inputs=texts, dimensions=8))
    np.testing.assert_allclose(
        short, expected[:, :8] / np.linalg.norm(expected[:, :8], axis=1, keepdims=True), atol=1e-5
    )


def test_tei_headers_info_and_health(many: Served) -> None:
    headers = post(many, "/embed", inputs="Go away.").headers
    assert headers["x-compute-characters"] == "8"
    assert int(headers["x-compute-tokens"]) > 3
    for name in ("x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"):
        assert int(headers[name]) >= 0
    info = many.client.get("/info").json()
    assert info["model_id"] == "hap"
    assert info["model_type"]["classifier"]["id2label"] == {"0": "ok", "1": "hap"}
    assert (info["max_input_length"], info["max_client_batch_size"], info["auto_truncate"]) == (64, 128, False)
    assert [model["name"] for model in info["models"]] == ["hap", "enc", "ner", "qa", "number"]
    assert many.client.get("/models/enc/info").json()["model_type"] == {"embedding": {"pooling": "mean"}}
    health = many.client.get("/health")
    assert (health.status_code, health.content) == (200, b"")


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/embed", {"inputs": "a", "model": "hap"}, 424, "Backend"),
        ("/predict", {"inputs": "a", "model": "enc"}, 424, "Backend"),
        ("/embed", {"inputs": "word " * 100}, 413, "Validation"),
        ("/embed", {"inputs": ["a"] * 129}, 413, "Validation"),
        ("/embed", {"inputs": []}, 422, "Validation"),
        ("/embed", {"inputs": [3]}, 422, "Validation"),
        ("/embed", {"inputs": "a", "truncation_direction": "left"}, 422, "Validation"),
        ("/embed", {"inputs": "a", "prompt_name": "query"}, 422, "Validation"),
        ("/embed", {"inputs": "a", "dimensions": 33}, 422, "Validation"),
        ("/predict", {"inputs": ["a", "b", "c"]}, 422, "Validation"),
        ("/predict", {"inputs": [["a"], ["a", "b", "c"]]}, 422, "Validation"),
        ("/embed", {"inputs": "a", "model": "other"}, 404, "Validation"),
    ],
)
def test_tei_errors(many: Served, path: str, body: dict[str, Any], status: int, kind: str) -> None:
    answer = post(many, path, **body)
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind)
    assert set(answer.json()) == {"error", "error_type"}


def test_openai_embeddings(many: Served, encoder: Path) -> None:
    texts = ["Go away.", "You are very kind."]
    expected = Session(encoder, FORM, 1).predict(texts)
    body = good(many, "/v1/embeddings", input=texts, model="enc")
    assert (body["object"], body["model"]) == ("list", "enc")
    assert [(row["object"], row["index"]) for row in body["data"]] == [("embedding", 0), ("embedding", 1)]
    np.testing.assert_allclose([row["embedding"] for row in body["data"]], expected, atol=1e-5)
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 6
    rows = good(many, "/v1/embeddings", input=texts, model="enc", encoding_format="base64")["data"]
    decoded = [np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in rows]
    np.testing.assert_allclose(decoded, expected, atol=1e-5)
    missing = post(many, "/v1/embeddings", input="a", model="gpt")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"
    wrong = post(many, "/v1/embeddings", input=[[1, 2]], model="enc")
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (400, "invalid_request_error")
    assert [row["id"] for row in many.client.get("/v1/models").json()["data"]] == ["hap", "enc", "ner", "qa", "number"]


def test_openai_package(many: Served, encoder: Path) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{many.url}/v1", api_key="none", http_client=None, max_retries=0)
    expected = Session(encoder, FORM, 1).predict(["Go away."])
    found = client.embeddings.create(model="enc", input=["Go away."])  # asks for base64 and decodes it
    np.testing.assert_allclose([found.data[0].embedding], expected, atol=1e-5)
    assert len(client.embeddings.create(model="enc", input="a", dimensions=5).data[0].embedding) == 5
    assert client.models.list().data[1].id == "enc"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
        client.embeddings.create(model="gpt", input="a")
    with pytest.raises(openai.BadRequestError, match="at most 64"):
        client.embeddings.create(model="enc", input="word " * 100)


def test_guardrails_detectors(many: Served, classifier: Path, tagger: Path) -> None:
    texts = ["Go away.", "You are very kind.", "word " * 150]
    chances = Session(classifier, FORM, 1).predict(texts[:2])[:, 1]
    found = good(
        many, "/api/v1/text/contents", {"detector-id": "hap"}, contents=texts, detector_params={"threshold": 0}
    )
    assert [len(spans) for spans in found[:2]] == [1, 1]
    for text, chance, spans in zip(texts[:2], chances, found[:2], strict=True):
        assert spans[0] == {
            "start": 0, "end": len(text), "text": text, "detection": "hap", "detection_type": "hap",
            "score": pytest.approx(chance, abs=1e-5),
        }  # fmt: skip
    assert len(found[2]) > 2  # windows of the long text
    assert found[2][0]["start"] == 0
    assert found[2][-1]["end"] == len(texts[2].rstrip())
    none = good(
        many, "/api/v1/text/contents", {"detector-id": "hap"}, contents=texts[:2], detector_params={"threshold": 1}
    )
    assert none == [[], []]
    entities = good(many, "/v1/entities", text="Ada Lovelace lives in London.", model="ner")["entities"][0]
    spans = good(many, "/api/v1/text/contents", {"detector-id": "ner"}, contents=["Ada Lovelace lives in London."],
                 detector_params={"threshold": 0})[0]  # fmt: skip
    assert [(span["start"], span["end"], span["detection"]) for span in spans] == [
        (one["start"], one["end"], one["label"]) for one in entities
    ]
    for headers, body, status in (
        ({}, {"contents": ["a"]}, 422),
        ({"detector-id": "other"}, {"contents": ["a"]}, 404),
        ({"detector-id": "hap"}, {"contents": []}, 422),
        ({"detector-id": "hap"}, {"contents": ["a"], "detector_params": {"labels": ["bad"]}}, 422),
        ({"detector-id": "enc"}, {"contents": ["a"]}, 404),
    ):
        answer = post(many, "/api/v1/text/contents", headers, **body)
        assert answer.status_code == answer.json()["code"] == status
        assert set(answer.json()) == {"code", "message"}


def test_entities_equal_those_of_the_session_in_every_window(many: Served, tagger: Path) -> None:
    """The labels of a short text are those of one call; a long text of the same sentences finds spans in all its parts."""
    session = Session(tagger, FORM, 1)
    text = "Ada Lovelace lives in London with Charles Babbage."
    scores = token_scores(session, [text])[0]
    found = good(many, "/v1/entities", text=text, model="ner")["entities"][0]
    tokens = {
        tuple(offset): session.labels[int(row.argmax())]
        for offset, row in zip(scores.offsets.tolist(), scores.probabilities, strict=True)
    }
    for one in found:
        assert text[one["start"] : one["end"]] == one["text"]
        starts = [label for (start, end), label in tokens.items() if one["start"] <= start < end <= one["end"]]
        assert starts
        assert starts[0].endswith(one["label"])
    inside = {index for one in found for index in range(one["start"], one["end"])}
    for (start, end), label in tokens.items():
        if label != "O" and (start == 0 or text[start - 1] == " "):
            assert start in inside, (start, end, label)
    long = " ".join([text] * 30)
    spans = good(many, "/v1/entities", texts=[long], model="ner")["entities"][0]
    assert spans[-1]["end"] > len(long) * 0.9
    assert all(long[one["start"] : one["end"]] == one["text"] for one in spans)
    assert [one["start"] for one in spans] == sorted(one["start"] for one in spans)


def test_answers_equal_those_of_the_session(many: Served, answerer: Path) -> None:
    pairs = [("Who lives?", "Ada Lovelace lives in London."), ("Where?", "She went to Paris by train. " * 30)]
    expected = Answerer(Session(answerer, FORM, 1)).answers(pairs)
    body = good(many, "/v1/answer", questions=[{"question": one, "context": other} for one, other in pairs])
    assert [(row["text"], row["start"], row["end"]) for row in body["answers"]] == [
        (one.text, one.start, one.end) for one in expected
    ]
    single = good(many, "/v1/answer", question=pairs[0][0], context=pairs[0][1])
    assert single["answers"][0] == body["answers"][0]
    assert good(many, "/v1/answer", question="Who?", context="")["answers"] == [
        {"text": "", "start": 0, "end": 0, "score": None}
    ]
    assert post(many, "/v1/answer", question="Who?").status_code == 422


def test_long_texts_are_classified_by_windows(many: Served, classifier: Path, sentences: list[str]) -> None:
    session = Session(classifier, FORM, 1)
    short = good(many, "/v1/classify", texts=sentences[:20], too_long="windows")["predictions"]
    expected = session.predict(sentences[:20])
    np.testing.assert_allclose([row["scores"]["hap"] for row in short], expected[:, 1], atol=1e-5)
    assert not any("windows" in row for row in short)
    long = " ".join(sentences[:40])
    row = good(many, "/v1/classify", text=long, too_long="windows")["predictions"][0]
    ids = session.encode([long], "whole")[0]
    first, inner, last = ids[0], ids[1:-1], ids[-1]
    starts = range(0, len(inner) - 15, 47)  # 62 tokens of the text in each window, 15 of them shared
    parts = session.predict_ids([[first, *inner[start : start + 62], last] for start in starts])
    windows = sorted(row["windows"], key=lambda one: one["start"])
    assert len(windows) == len(parts) > 5
    assert (windows[0]["start"], windows[-1]["end"]) == (0, len(long))
    for one, scores in zip(windows, parts, strict=True):
        assert one["label"] == ("ok", "hap")[int(scores.argmax())]
        assert one["score"] == pytest.approx(scores.max(), abs=1e-4)
    strict = good(many, "/v1/classify", text=long, too_long="windows", label="hap")["predictions"][0]
    assert strict["scores"]["hap"] == pytest.approx(max(scores[1] for scores in parts), abs=1e-4)
    assert min(scores[1] for scores in parts) < row["scores"]["hap"] < strict["scores"]["hap"]
    assert good(many, "/v1/classify", text=long, truncate=True)["predictions"][0]["truncated"] is True
    assert post(many, "/v1/classify", text=long).status_code == 413
    assert post(many, "/v1/classify", text="a", label="bad").status_code == 422


def test_a_regression_gives_its_number(many: Served, regressor: Path) -> None:
    expected = float(Session(regressor, FORM, 1).predict(["Go away."])[0, 0])
    row = good(many, "/v1/classify", text="Go away.", model="number")["predictions"][0]
    assert row["score"] == pytest.approx(expected, abs=1e-4)
    assert list(row["scores"]) == [row["label"]]


def test_a_model_is_chosen_by_path_body_or_header(many: Served) -> None:
    by_body = good(many, "/predict", texts=["a"], model="enc")
    assert by_body["model"] == "enc"
    assert good(many, "/models/enc/predict", texts=["a"]) == by_body
    assert good(many, "/predict", {"x-model": "enc"}, texts=["a"]) == by_body
    assert good(many, "/predict", texts=["a"])["model"] == "hap"  # the first one that fits
    assert post(many, "/models/other/predict", texts=["a"]).status_code == 404


def test_a_multi_label_model_gives_independent_scores(classifier: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many-labels"
    shutil.copytree(classifier, folder)
    settings = json.loads((folder / "kdnas.json").read_text())
    (folder / "kdnas.json").write_text(json.dumps(settings | {"problem_type": "multi_label_classification"}))
    session = Session(folder, FORM, 1, verify=False)
    if not hasattr(session, "multi_label"):
        pytest.skip("sessions of this version know no multi-label models")
    expected = 1 / (1 + np.exp(-text_logits(session, ["Go away."])[0]))
    with serving(folder, "--form", FORM, "--verify", "false") as served:
        row = good(served, "/v1/classify", text="Go away.")["predictions"][0]
        assert list(row["scores"].values()) == pytest.approx(expected, abs=1e-5)
        assert row["labels"] == [label for label, score in row["scores"].items() if score >= 0.5]
        found = good(served, "/api/v1/text/contents", {"detector-id": folder.name}, contents=["Go away."])
        assert [span["detection"] for span in found[0]] == row["labels"]
