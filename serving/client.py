"""A small typed client of the service, on the standard library: `kdnas.Client(url)`."""

import http.client
import json
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from kdnas.errors import KdnasError, UsageError

TooLong = Literal["error", "truncate", "windows"]
RETRIES = 3  # of a request that the service refused because it was overloaded
# The server closed a kept connection before it read the request.
LOST = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class ServiceError(KdnasError):
    """The service refused a request or failed.

    Attributes:
        status: HTTP status; 0 without an answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Part:
    """The label of one part of a long text, from code point `start` to `end`."""

    start: int
    end: int
    label: str
    score: float


@dataclass(frozen=True)
class Classification:
    """The best label of a text, its score, and the scores of all labels.

    Args:
        labels: of a multi-label model, the labels that reach their thresholds.
        windows: parts of a long text, the highest score first.
        truncated: whether the text was cut.
    """

    label: str
    score: float
    scores: dict[str, float]
    labels: tuple[str, ...] = ()
    windows: tuple[Part, ...] = ()
    truncated: bool = False


@dataclass(frozen=True)
class Entity:
    """A span of a text: its code points from `start` to `end`."""

    start: int
    end: int
    text: str
    label: str
    score: float


@dataclass(frozen=True)
class Answer:
    """An answer: the context's code points from `start` to `end`; the score is None without an answer."""

    text: str
    start: int
    end: int
    score: float | None


@dataclass
class Client:
    """Client of one service; safe for several threads, each with its own kept connection.

    Args:
        url: address of the service, such as `http://127.0.0.1:8000`.
        key: key of the service, if it needs one.
        model: name of the model; by default the service's first one that fits.
        timeout_seconds: maximum time of a request.

    Raises:
        UsageError: the address is not http or https.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    model: str | None = None
    timeout_seconds: float = 60.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"url '{self.url}': give an address such as http://127.0.0.1:8000")
        self._local = threading.local()
        self._prefix = parts.path.rstrip("/")
        self._address = (parts.hostname, parts.port)
        self._secure = parts.scheme == "https"

    def classify(
        self,
        texts: Iterable[str],
        too_long: TooLong | None = None,
        label: str | None = None,
        language: str | None = None,
    ) -> list[Classification]:
        """Labels and scores of texts, in their order.

        Args:
            texts: N texts.
            too_long: what to do with texts that are too long for the model; by default the service's policy.
            label: a text in windows gets the scores of the window in which this label is most probable.
            language: code of the language of the texts, for a model that has thresholds by language.

        Raises:
            ServiceError: refused or failed.
        """
        body = {"texts": _listed(texts), "too_long": too_long, "label": label, "language": language}
        return [
            Classification(
                row["label"],
                row["score"],
                row["scores"],
                tuple(row.get("labels", ())),
                tuple(Part(**part) for part in row.get("windows", ())),
                row.get("truncated", False),
            )
            for row in self._post("/v1/classify", body)["predictions"]
        ]

    def embed(self, texts: Iterable[str], dimensions: int | None = None, truncate: bool = False) -> np.ndarray:
        """L2-normalised vectors (N, D) of texts, float32; `dimensions` keeps the first ones, normalised again.

        Raises:
            ServiceError: refused or failed.
        """
        body = {"inputs": _listed(texts), "dimensions": dimensions, "truncate": truncate}
        return np.asarray(self._post("/embed", body), dtype=np.float32)

    def entities(self, texts: Iterable[str]) -> list[list[Entity]]:
        """Entities of texts of any length, in their order.

        Raises:
            ServiceError: refused or failed.
        """
        found = self._post("/v1/entities", {"texts": _listed(texts)})["entities"]
        return [[Entity(**row) for row in rows] for rows in found]

    def answer(self, question: str, context: str) -> Answer:
        """The answer to a question from a context of any length.

        Raises:
            ServiceError: refused or failed.
        """
        return Answer(**self._post("/v1/answer", {"question": question, "context": context})["answers"][0])

    def info(self) -> dict[str, Any]:
        """Models, labels and limits of the service."""
        return dict(self._request("GET", "/info", None))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        given = {name: value for name, value in {**body, "model": self.model}.items() if value is not None}
        return self._request("POST", path, json.dumps(given).encode())

    def _request(self, method: str, path: str, body: bytes | None) -> Any:
        for attempt in range(RETRIES + 1):
            status, headers, data = self._send(method, path, body)
            if status == 200:
                return json.loads(data)
            if status != 429 or attempt == RETRIES:
                break
            time.sleep(min(float(headers.get("retry-after", 1)), 10.0))
        try:
            message = json.loads(data)["error"]
        except (ValueError, KeyError, TypeError):
            message = data.decode("utf-8", "replace")[:200]
        raise ServiceError(status, f"{self.url}{path}: {status}: {message}")

    def _send(self, method: str, path: str, body: bytes | None) -> tuple[int, Any, bytes]:
        """Status, headers and body; a connection that the service closed meanwhile is opened again."""
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {self.key}"} if self.key else {})
        for fresh in (False, True):
            connection = self._connection(fresh)
            try:
                connection.request(method, self._prefix + path, body, headers)
                answer = connection.getresponse()
                return answer.status, answer.headers, answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if fresh or not isinstance(error, LOST):
                    raise ServiceError(0, f"{self.url}: no answer ({error or type(error).__name__})") from error
        raise AssertionError("unreachable")

    def _connection(self, fresh: bool) -> http.client.HTTPConnection:
        if fresh or not hasattr(self._local, "connection"):
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            self._local.connection = kind(*self._address, timeout=self.timeout_seconds)
        connection: http.client.HTTPConnection = self._local.connection
        return connection


def _listed(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise UsageError(f"texts is one string ({texts[:40]!r}); give a list, for example [{texts[:40]!r}]")
    return list(texts)
