"""Of which module and file a part of a modular model is.

Invariant: its text is what OpenFGA's tools write as a comment behind the part; a schema keeps it as the `doc` of a
type, relation or condition, so that it survives every form of the model.
"""

import re
from typing import NamedTuple

_COMMENT = re.compile(r"(?:extended by: )?module: (?P<module>[^\s,]+)(?:, file: (?P<file>.+))?")


class Provenance(NamedTuple):
    """A module and, where it is known, the file of it."""

    module: str
    file: str = ""

    def __str__(self) -> str:
        return f"module: {self.module}, file: {self.file}" if self.file else f"module: {self.module}"

    @classmethod
    def parse(cls, doc: str) -> "Provenance | None":
        """Returns what a `doc` says; None where it says nothing of modules."""
        found = _COMMENT.fullmatch(doc)
        return cls(found["module"], found["file"] or "") if found else None
