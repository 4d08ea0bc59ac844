"""GET /metrics: what the server answers and how long it takes, for Prometheus.

Each server has a registry of its own, so that two in one process do not meet.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cupola.access.decision import Decision

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The server's own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        route = ("route", "method", "status")
        self._requests = Counter("cupola_access_requests", "Calls, of HTTP and of gRPC.", route, registry=self.registry)
        self._seconds = Histogram(
            "cupola_access_seconds", "Of calls.", ("route",), buckets=_SECONDS, registry=self.registry
        )
        self._decisions = Counter("cupola_access_decisions", "Checks, by answer.", ("verdict",), registry=self.registry)
        self._changes = Counter("cupola_access_updates", "Relationships written or deleted.", registry=self.registry)

    def answered(self, route: str, method: str, status: int | str, seconds: float) -> None:
        """Counts a call; `route` is its pattern, not its path, so that they are few."""
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def decided(self, decision: Decision) -> None:
        """Counts the answer to a check."""
        self._decisions.labels(decision.verdict.value).inc()

    def wrote(self, updates: int) -> None:
        """Counts changes of relationships."""
        self._changes.inc(updates)

    def watch(self, name: str, meaning: str, value: Callable[[], float | int]) -> None:
        """Adds a gauge that asks for its value when it is read."""
        Gauge(f"cupola_access_{name}", meaning, registry=self.registry).set_function(lambda: float(value()))

    def text(self) -> bytes:
        """Returns everything in Prometheus' text format."""
        return generate_latest(self.registry)
