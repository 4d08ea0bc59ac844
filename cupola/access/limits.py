"""How much one call may ask for, and how much is kept in memory for the next.

Invariant: what is over a limit is refused by name, never cut silently.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from cupola.access.errors import InvalidArgument, TooMuch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a graph.

    Args:
        updates: of one write.
        preconditions: of one write.
        questions: of one batch.
        context_bytes: of the parameters of a question or a relationship, as JSON.
        metadata_bytes: that a writer may send along.
        extra: relationships that hold for one question only.
        schema_bytes: of a schema's text.
        caveat_cost: steps of evaluating one condition.
        seconds: that one answer may take.
        index_after: questions about a group that are answered without the index, before the group is kept in it,
            which happens in the background; 0: it is kept from the first question on, which waits for that.
        cached_facts: relationships as read from the store that are kept for later questions, for each version of
            the schema; 0: no question leaves anything behind for another, and groups are not indexed.
    """

    updates: int = 1000
    preconditions: int = 1000
    questions: int = 10_000
    context_bytes: int = 64 << 10
    metadata_bytes: int = 64 << 10
    extra: int = 100
    schema_bytes: int = 4 << 20
    caveat_cost: int = 10_000
    seconds: float = 30.0
    index_after: int = 64
    cached_facts: int = 1_000_000

    def check(self, name: str, found: int) -> None:
        """Refuses what is over a limit.

        Args:
            name: of the limit, one of the fields.

        Raises:
            TooMuch: `found` is over it.
        """
        most = getattr(self, name)
        if found > most:
            raise TooMuch(
                f"{found} {name.replace('_', ' ')}, at most {most}", where=name, remedy="Send less at a time."
            )

    def json(self, values: Mapping[str, Any], name: str) -> str:
        """Returns the text of parameters or of metadata.

        Args:
            name: of what it is; the limit is its name with `_bytes`.

        Raises:
            InvalidArgument: JSON has no such values.
            TooMuch: it is over the limit.
        """
        try:
            text = json.dumps(values, sort_keys=True)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgument(f"is no JSON object: {error}", where=name, remedy="Use JSON values.") from None
        self.check(f"{name}_bytes", len(text))
        return text
