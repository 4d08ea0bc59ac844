"""What calls of gRPC leave in the metrics and in the audit log, as those of HTTP do.

Not here: the calls (`grpc/`), the log (`audit.py`).
Invariant: it never raises, and waits for nothing.
"""

import logging
from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import MessageToDict

from cupola.access.server.audit import Audit
from cupola.access.server.grpc.gate import Served
from cupola.access.server.http.metrics import Metrics

logger = logging.getLogger(__name__)

WRITES = frozenset(
    {
        "WriteRelationships",
        "DeleteRelationships",
        "WriteSchema",
        "ImportBulkRelationships",
        "BulkImportRelationships",
    }
)
"""Methods whose calls are always in the log."""
DECISIONS = frozenset({"CheckPermission", "CheckBulkPermissions", "BulkCheckPermission"})
"""Methods of which a sample is."""


def observer(metrics: Metrics, audit: Audit) -> Callable[[Served], None]:
    """Returns what is to be told of every call that ended."""

    def observe(served: Served) -> None:
        try:
            metrics.answered(f"grpc/{served.method}", "GRPC", served.code, served.seconds)
            done = served.code == "OK"
            if done and (served.method in WRITES or (served.method in DECISIONS and audit.samples())):
                audit.write("decision" if served.method in DECISIONS else "write", **_facts(served))
        except Exception:
            logger.exception("a call of %s was not recorded", served.method)

    return observe


def _facts(served: Served) -> dict[str, Any]:
    caller = served.caller
    return {
        "by": "" if caller is None else caller.name,
        "tenant": "" if caller is None else caller.tenant,
        "method": served.method,
        "request": _shown(served.request),
        "answer": _shown(served.answer),
    }


def _shown(message: Any) -> Any:
    return None if message is None else MessageToDict(message, preserving_proto_field_name=True)
