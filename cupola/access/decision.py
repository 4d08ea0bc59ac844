"""What a question is asked with, and what is answered.

Not here: how it is found (`engine/`).
Invariant: `allowed` is true only where the subject has the permission for certain; where a condition lacks
parameters, it is false and `missing` names them; where the question could not be asked, `error` says why.
"""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from cupola.access.errors import AccessError
from cupola.access.relation import Object, Relationship, Subject


class Verdict(enum.Enum):
    """Three-valued answer."""

    NO = "no"
    CONDITIONAL = "conditional"
    YES = "yes"


@dataclasses.dataclass(frozen=True)
class Step:
    """One node of an explanation: a question that was asked on the way, and its parts.

    Args:
        text: what was asked, such as `model:kiln#use@user:ada`, or the operator between the parts.
        verdict: the answer to it.
        relationship: the fact that decided it, where one did.
        missing: parameters that its condition lacks.
        note: why, in words, where the parts do not say it: "expired", "already being asked: a cycle".
        parts: the questions that it depends on, in the order they were asked.
    """

    text: str
    verdict: Verdict
    relationship: Relationship | None = None
    missing: tuple[str, ...] = ()
    note: str = ""
    parts: tuple["Step", ...] = ()

    def __str__(self) -> str:
        lines, pending = [], [(self, 0)]
        while pending:
            step, depth = pending.pop()
            # A relation that a single relationship of its own decides is said once.
            if depth and len(step.parts) == 1 and step.parts[0].text == step.text:
                step = step.parts[0]
            lines.append(step._line(depth))
            pending += ((part, depth + 1) for part in reversed(step.parts))
        return "\n".join(lines)

    def _line(self, depth: int) -> str:
        mark = {Verdict.YES: "+", Verdict.NO: "-", Verdict.CONDITIONAL: "?"}[self.verdict]
        said = self.text if self.relationship is None else str(self.relationship)
        lacks = f"  lacks {', '.join(self.missing)}" if self.missing and (self.relationship or not depth) else ""
        note = f"  ({self.note})" if self.note else ""
        return f"{'  ' * depth}{mark} {said}{lacks}{note}"


@dataclasses.dataclass(frozen=True)
class Decision:
    """The answer to a check.

    Args:
        allowed: whether the subject has the permission.
        revision: token of the revision it was answered at.
        missing: names of parameters that conditions lack; with them the answer could be yes.
        why: the path that allowed, or every path that was tried; None unless it was asked for.
        error: of a question among many that has no answer; then nothing is allowed.
    """

    allowed: bool
    revision: str
    missing: tuple[str, ...] = ()
    why: Step | None = None
    error: AccessError | None = None

    def __bool__(self) -> bool:
        return self.allowed

    @property
    def verdict(self) -> Verdict:
        """The answer as one of three.

        Raises:
            AccessError: there is none.
        """
        if self.error is not None:
            raise self.error
        return Verdict.YES if self.allowed else Verdict.CONDITIONAL if self.missing else Verdict.NO


@dataclasses.dataclass(frozen=True)
class Question:
    """One check of a batch.

    Args:
        object: asked about.
        permission: or relation.
        subject: who; one with a relation asks for all who have it.
        context: parameters for conditions.
    """

    object: Object
    permission: str
    subject: Subject
    context: Mapping[str, Any] = dataclasses.field(default_factory=dict)
