"""A compiled condition, and its answer to some parameters.

Not here: how it was compiled (`compile.py`).
Invariant: an answer that is not CONDITIONAL stays the same whatever the parameters that were not given are.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from cupola.access.caveat.closures import Run
from cupola.access.caveat.types import ParameterType, convert
from cupola.access.caveat.values import NAMES, Absent, Failed, Unknown, spend
from cupola.access.decision import Verdict
from cupola.access.errors import InvalidArgument


class EvaluationFailed(InvalidArgument):
    """A condition that divides by zero, has no such key, or the like, with these parameters."""


class Outcome(NamedTuple):
    """What a condition answers.

    Args:
        missing: parameters that it needs next; empty unless the verdict is CONDITIONAL.
        cost: steps that it took.
    """

    verdict: Verdict
    missing: tuple[str, ...]
    cost: int


@dataclasses.dataclass(frozen=True, eq=False)
class Compiled:
    """A condition that can be asked again and again, from many threads.

    Args:
        name: of it.
        parameters: types by name, all that it declares.
        run: the expression as a function.
        frame_size: entries of its frame.
        fixed_cost: steps outside of loops.
    """

    name: str
    parameters: Mapping[str, ParameterType]
    run: Run
    frame_size: int
    fixed_cost: int

    def evaluate(self, parameters: Mapping[str, Any], *, cost: int) -> Outcome:
        """Returns what the condition answers to these parameters, as JSON has them.

        Parameters that it does not declare are not looked at.

        Args:
            cost: steps that it may take.

        Raises:
            InvalidArgument: a parameter is of another type.
            EvaluationFailed: it divides by zero, has no such key, or the like.
            TooMuch: it takes more steps.
        """
        frame: list[Any] = [Absent.ABSENT] * self.frame_size
        frame[0] = cost
        spend(frame, self.fixed_cost)
        for slot, (name, type) in enumerate(self.parameters.items(), 1):
            if name in parameters:
                frame[slot] = convert(self.name, name, type, parameters[name])
        try:
            answer = self.run(frame)
        except Unknown as unknown:
            return Outcome(Verdict.CONDITIONAL, unknown.names, cost - frame[0])
        except Failed as failure:
            raise self._failed(str(failure)) from failure
        if answer is True:
            return Outcome(Verdict.YES, (), cost - frame[0])
        if answer is False:
            return Outcome(Verdict.NO, (), cost - frame[0])
        raise self._failed(f"it gives a {NAMES[answer.__class__]} and must give a bool")

    def _failed(self, problem: str) -> EvaluationFailed:
        return EvaluationFailed(
            problem, where=f"caveat {self.name}", remedy="Give other parameters, or let the expression ask first."
        )
