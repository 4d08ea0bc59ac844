"""What came of running a file: how much held, and what did not, each with its place.

Not here: the running (`run.py`), the printing on a terminal.
"""

import dataclasses
import enum

from cupola.access.validate.place import Place


class Kind(enum.Enum):
    """What a file may claim; the values are their names in the plural."""

    ASSERTION = "assertions"
    EXPECTED = "expected relations"
    CHECK = "checks"
    OBJECTS = "lists of objects"
    USERS = "lists of users"


@dataclasses.dataclass(frozen=True)
class Failure:
    """A claim that does not hold.

    Args:
        place: where it is made.
        claim: what was asked.
        expected: what the file says.
        found: what is so.
        why: the explanation, several lines; "" where there is none.
        test: name of the test that it is part of; "" where tests have no names.
    """

    kind: Kind
    place: Place
    claim: str
    expected: str
    found: str
    why: str = ""
    test: str = ""

    def __str__(self) -> str:
        named = f" ({self.test})" if self.test else ""
        lines = [f"{self.place}: {self.claim}{named}", f"  expected {self.expected}", f"  found    {self.found}"]
        return "\n".join([*lines, *(f"    {line}" for line in self.why.splitlines())])


@dataclasses.dataclass
class Count:
    """How the claims of a kind came out.

    Args:
        held: as claimed.
        failed: not so.
        undecided: where the file expects that an engine gives up, and this one answers.
    """

    held: int = 0
    failed: int = 0
    undecided: int = 0


@dataclasses.dataclass
class Report:
    """What came of running a file.

    Args:
        source: name of the file.
        counts: of the kinds that it has.
        failures: in the order of the file.
    """

    source: str
    counts: dict[Kind, Count] = dataclasses.field(default_factory=dict)
    failures: list[Failure] = dataclasses.field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether everything holds."""
        return not self.failures

    @property
    def total(self) -> int:
        """How many claims there are."""
        return sum(count.held + count.failed + count.undecided for count in self.counts.values())

    def note(self, kind: Kind, failure: Failure | None) -> None:
        """Notes how a claim came out."""
        count = self.counts.setdefault(kind, Count())
        if failure is None:
            count.held += 1
        else:
            count.failed += 1
            self.failures.append(failure)

    def __str__(self) -> str:
        """The counts, in one line."""
        parts = []
        for kind, count in self.counts.items():
            failed = f", {count.failed} failed" if count.failed else ""
            left = f", {count.undecided} where an engine was to give up" if count.undecided else ""
            parts.append(f"{count.held} {kind.value} hold{failed}{left}")
        return f"{self.source}: {'; '.join(parts) or 'claims nothing'}"
