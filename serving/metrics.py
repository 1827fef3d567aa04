"""Prometheus metrics of the service: requests, texts and tokens, and the time in queue, tokenizer and model apart."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0, 16.0)
TEXTS = [2.0**power for power in range(11)]


class Metrics:
    """The metrics of one service, in a registry of their own.

    Args:
        waiting: number of waiting texts.
        backlog_seconds: estimated seconds of the waiting work.
        in_flight: number of requests that are not answered.
    """

    def __init__(
        self, waiting: Callable[[], float], backlog_seconds: Callable[[], float], in_flight: Callable[[], float]
    ) -> None:
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
        for name, help_text, function in (
            ("kdnas_queue_texts", "Texts that wait for a model", waiting),
            ("kdnas_backlog_seconds", "Estimated time of the waiting work", backlog_seconds),
            ("kdnas_requests_in_flight", "Requests not yet answered", in_flight),
        ):
            Gauge(name, help_text, registry=registry).set_function(function)

    def observe_batch(self, model: str, texts: int, tokens: int, tokenise: float, run: float) -> None:
        """Count one batch of a model: texts, tokens, seconds of tokenising and of the model."""
        self.texts.labels(model).inc(texts)
        self.tokens.labels(model).inc(tokens)
        self.batch.labels(model).observe(texts)
        self.tokenise.labels(model).observe(tokenise)
        self.model.labels(model).observe(run)
