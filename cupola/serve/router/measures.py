"""What a router counts, for Prometheus.

Not here: what it asks of a guard before it tells (`app.py`).
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from cupola.serve.router.workers import Circuit, Workers


class Measures:
    """Counters of one router, in a registry of its own.

    Args:
        workers: whose state is told.
    """

    def __init__(self, workers: Workers):
        self._workers = workers
        self._registry = registry = CollectorRegistry()
        self._answers = Counter("cupola_router_answers", "Answers of workers.", ("worker", "status"), registry=registry)
        self._lost = Counter(
            "cupola_router_lost", "Answers that never came or broke off.", ("worker",), registry=registry
        )
        self._retries = Counter("cupola_router_retries", "Requests sent again.", registry=registry)
        self._sent = Counter("cupola_router_key_characters", "Of prompts sent.", ("worker",), registry=registry)
        self._held = Counter(
            "cupola_router_held_characters", "Of these, sent to the same worker before.", ("worker",), registry=registry
        )
        self._running = Gauge("cupola_router_running", "Requests being answered.", ("worker",), registry=registry)
        self._takes = Gauge(
            "cupola_router_available", "1 where a worker takes requests.", ("worker",), registry=registry
        )

    def chosen(self, worker: str, characters: int, held: int) -> None:
        """Counts a request that is about to be sent."""
        self._sent.labels(worker).inc(characters)
        self._held.labels(worker).inc(held)

    def answered(self, worker: str, status: int) -> None:
        """Counts an answer that has begun."""
        self._answers.labels(worker, str(status)).inc()

    def lost(self, worker: str) -> None:
        """Counts an answer that did not come, or not to its end."""
        self._lost.labels(worker).inc()

    def retried(self) -> None:
        """Counts a request that is sent again."""
        self._retries.inc()

    def text(self) -> bytes:
        """Returns everything in Prometheus' text format."""
        self._running.clear()
        self._takes.clear()
        for worker in self._workers:
            self._running.labels(worker.url).set(worker.running)
            self._takes.labels(worker.url).set(worker.healthy and worker.circuit is not Circuit.OPEN)
        return generate_latest(self._registry)
