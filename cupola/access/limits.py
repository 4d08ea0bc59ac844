"""How much one call may ask for.

Invariant: what is over a limit is refused by name, never cut silently.
"""

import dataclasses

from cupola.access.errors import TooMuch


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
