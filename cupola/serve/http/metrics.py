"""GET /metrics: what the engines and the server are doing, for Prometheus.

Not here: what an engine counts (`generator.py`). Each server has a registry of its own, so that two
in one process do not meet. Invariant: a scrape asks each engine once, and an engine that fails to
answer costs its own lines, not the scrape.
"""

import dataclasses
import logging
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cupola.serve.generator import Generator, Served, Stats

logger = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0)
_PER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0)

_GAUGES = {
    "running": "Requests with keys and values in memory.",
    "waiting": "Requests in the queue.",
    "pages": "Pages of keys and values in all.",
    "pages_used": "Pages held by running requests.",
    "pages_cached": "Pages held by the prefix cache alone.",
}


@dataclasses.dataclass(frozen=True)
class Times:
    """When one request passed its stations, in seconds of a steady clock.

    Args:
        submitted: given to the engine.
        first: its first token came; None: it had none.
        last: its last piece came.
        tokens: generated.
    """

    submitted: float
    first: float | None
    last: float
    tokens: int


@dataclasses.dataclass(frozen=True)
class Spoken:
    """What one text that was spoken took and gave.

    Args:
        first_seconds: from the request to its first sound; None: there was none.
        seconds: from the request to its end.
        audio_seconds: of sound.
        cut: sentences that the voice did not end by itself.
    """

    first_seconds: float | None
    seconds: float
    audio_seconds: float
    cut: int


class Metrics:
    """The server's own registry."""

    def __init__(self, models: Mapping[str, Served]):
        self._registry = CollectorRegistry()
        self._registry.register(_Engines(models))
        by_route = ("route", "method", "status")
        self._requests = Counter("cupola_http_requests", "Answered HTTP requests.", by_route, registry=self._registry)
        self._seconds = self._histogram("cupola_http_request_seconds", "Of whole HTTP requests.", _LATENCY, "route")
        self._first = self._histogram(
            "cupola_time_to_first_token_seconds", "From submission to the first token.", _LATENCY, "model"
        )
        self._token = self._histogram(
            "cupola_time_per_output_token_seconds", "Between tokens after the first, by request.", _PER_TOKEN, "model"
        )
        self._first_audio = self._histogram(
            "cupola_time_to_first_audio_seconds", "From the request to the first sound.", _LATENCY, "model"
        )
        self._speech = self._histogram("cupola_speech_request_seconds", "Of whole texts, spoken.", _LATENCY, "model")
        self._audio = Counter("cupola_speech_audio_seconds", "Sound made.", ("model",), registry=self._registry)
        self._cut = Counter(
            "cupola_speech_cut_sentences",
            "Sentences that did not end by themselves.",
            ("model",),
            registry=self._registry,
        )
        self._whole = self._histogram("cupola_request_seconds", "From submission to the last token.", _LATENCY, "model")

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts an answered HTTP request; `route` is its pattern, not its path, so that they are few."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def generated(self, model: str, times: Times) -> None:
        """Records the latencies of a request that an engine has ended."""
        self._whole.labels(model).observe(times.last - times.submitted)
        if times.first is not None:
            self._first.labels(model).observe(times.first - times.submitted)
            if times.tokens > 1:
                self._token.labels(model).observe((times.last - times.first) / (times.tokens - 1))

    def spoke(self, model: str, spoken: Spoken) -> None:
        """Records a text that was spoken, or left while it was."""
        if spoken.first_seconds is not None:
            self._first_audio.labels(model).observe(spoken.first_seconds)
        self._speech.labels(model).observe(spoken.seconds)
        self._audio.labels(model).inc(spoken.audio_seconds)
        self._cut.labels(model).inc(spoken.cut)

    def text(self) -> bytes:
        """Returns everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], label: str) -> Histogram:
        return Histogram(name, meaning, (label,), buckets=buckets, registry=self._registry)


class _Engines(Collector):
    def __init__(self, models: Mapping[str, Served]):
        self._models = models

    def describe(self) -> list[Metric]:
        """Returns nothing: the names are known only from an answer, and no other collector has them."""
        return []

    def collect(self) -> Iterator[Metric]:
        answers = list(self._answers())
        for name, meaning in _GAUGES.items():
            gauge = GaugeMetricFamily(f"cupola_engine_{name}", meaning, labels=("model",))
            for model, stats in answers:
                gauge.add_metric((model,), getattr(stats, name))
            yield gauge
        counted = (f.name for f in dataclasses.fields(Stats) if f.name not in _GAUGES and f.name != "finished")
        for name in counted:
            counter = CounterMetricFamily(f"cupola_engine_{name}", f"{name} of an engine.", labels=("model",))
            for model, stats in answers:
                counter.add_metric((model,), getattr(stats, name))
            yield counter
        ended = CounterMetricFamily("cupola_engine_finished", "Ended requests.", labels=("model", "reason"))
        for model, stats in answers:
            for reason, count in stats.finished.items():
                ended.add_metric((model, reason), count)
        yield ended

    def _answers(self) -> Iterator[tuple[str, Stats]]:
        """Each engine's stats once, under the name of the base model that it serves."""
        engines: dict[int, tuple[str, Generator]] = {}
        for served in list(self._models.values()):
            engines.setdefault(id(served.engine), (served.parent or served.name, served.engine))
        for name, engine in engines.values():
            try:
                yield name, engine.stats()
            except Exception:
                logger.warning("the engine of %s does not say what it is doing", name, exc_info=True)
