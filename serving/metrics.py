"""Prometheus metrics of the service: requests, texts and tokens, and the time in queue, tokenizer and model apart.

With several processes, each records its counters and histograms in mapped files: the sums lose nothing if a process is killed,
and the process that replaces it continues its files.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0, 16.0)
TEXTS = [2.0**power for power in range(11)]
GAUGES = {
    "kdnas_queue_texts": "Texts that wait for a model",
    "kdnas_backlog_seconds": "Estimated time of the waiting work",
    "kdnas_requests_in_flight": "Requests not yet answered",
}


def record_in_files(folder: Path, number: int) -> None:
    """Record all `Metrics` that are made from now on in files, which `Metrics.text` of every process reads.

    Args:
        folder: folder of the files.
        number: number of this process in its group.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: number)


class Measured(Collector):
    """Gauges with given values."""

    def __init__(self, gauges: Mapping[str, float]) -> None:
        self.gauges = gauges

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, in the order of `GAUGES`."""
        return (GaugeMetricFamily(name, text, value=self.gauges[name]) for name, text in GAUGES.items())


class Metrics:
    """The counters and histograms of one process, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()

        def histogram(name: str, text: str, label: str = "model", buckets: Sequence[float] = SECONDS) -> Histogram:
            return Histogram(name, text, [label], buckets=buckets, registry=registry)

        self.requests = Counter("kdnas_requests", "Requests answered", ["path", "status"], registry=registry)
        self.seconds = histogram("kdnas_request_seconds", "Time from request to answer", "path")
        self.queue = histogram("kdnas_queue_seconds", "Time of a request before its first text is read")
        self.tokenise = histogram("kdnas_tokenise_seconds", "Time of tokenising one batch")
        self.model = histogram("kdnas_model_seconds", "Time of the model for one batch")
        self.batch = histogram("kdnas_batch_texts", "Texts in one batch", buckets=TEXTS)
        self.texts = Counter("kdnas_texts", "Texts or windows of texts run", ["model"], registry=registry)
        self.tokens = Counter("kdnas_tokens", "Tokens run", ["model"], registry=registry)
        self.reloads = Counter("kdnas_reloads", "Reloads of the models", ["outcome"], registry=registry)

    def text(self, gauges: Mapping[str, float], folder: Path | None = None) -> bytes:
        """The metrics in the text format of Prometheus.

        Args:
            gauges: values of `GAUGES`.
            folder: folder of the files of all processes; by default, this process is the only one.
        """
        registry = CollectorRegistry()
        registry.register(Measured(gauges))
        if folder is None:
            return generate_latest(self.registry) + generate_latest(registry)
        MultiProcessCollector(registry, str(folder))
        return generate_latest(registry)

    def observe_batch(self, model: str, texts: int, tokens: int, tokenise: float, run: float) -> None:
        """Count one batch of a model: texts, tokens, seconds of tokenising and of the model."""
        self.texts.labels(model).inc(texts)
        self.tokens.labels(model).inc(tokens)
        self.batch.labels(model).observe(texts)
        self.tokenise.labels(model).observe(tokenise)
        self.model.labels(model).observe(run)
