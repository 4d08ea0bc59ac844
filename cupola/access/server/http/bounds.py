"""What one server takes on over HTTP: sizes, counts and times.

Not here: the bounds of one question (`access/limits.py`), where these are enforced (`call.py`, `workers.py`).
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds:
    """Bounds of the HTTP server; what is over one is refused by name.

    Args:
        body_bytes: of a request's body.
        body_seconds: until the whole body has come.
        write_seconds: for which a client may leave an answer unread.
        seconds: until an answer, or the next part of one, is there.
        workers: questions that are answered at the same time.
        waiting: calls that wait for a worker.
        watchers: clients that watch at the same time.
        page: entries in a page of an answer, at most.
        playground_bytes: of the playground's schema, relationships and questions.
        grace_seconds: for what is running when the server stops.
    """

    body_bytes: int = 8 << 20
    body_seconds: float | int = 30.0
    write_seconds: float | int = 30.0
    seconds: float | int = 30.0
    workers: int = 16
    waiting: int = 1024
    watchers: int = 64
    page: int = 1000
    playground_bytes: int = 256 << 10
    grace_seconds: float | int = 10.0
