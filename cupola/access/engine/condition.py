"""Whether the condition of a relationship holds, or which parameters are lacking to say so.

Not here: CEL (`caveat/`).
Invariant: what a relationship brings along beats what a question brings.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

from cupola.access.caveat.compile import Compiled, compile_caveat
from cupola.access.decision import Verdict
from cupola.access.errors import Named, UnknownName, meant
from cupola.access.relation import Caveated
from cupola.access.schema.model import Schema

Value = bool | frozenset[str]
"""Yes, no, or the names of the parameters without which it is not known."""


class Conditions:
    """The caveats of a schema, compiled when they are first asked for.

    Args:
        cost: steps of evaluating one.
    """

    def __init__(self, schema: Schema, cost: int):
        self._schema, self._cost = schema, cost
        self._caveats = schema.conditions
        self._compiled: dict[str, Compiled] = {}

    def value(self, caveat: Caveated, context: Mapping[str, Any]) -> Value:
        """Returns whether a condition holds with the parameters of a question.

        Raises:
            UnknownName: the schema has no such caveat.
            AccessError: a parameter has another type, or the evaluation is too long.
        """
        compiled = self._compiled.get(caveat.name)
        if compiled is None:
            if caveat.name not in self._caveats:
                raise UnknownName(
                    f"the schema has no caveat {caveat.name!r}",
                    kind=Named.CAVEAT,
                    where=caveat.name,
                    remedy=meant(caveat.name, self._caveats),
                )
            compiled = compile_caveat(self._caveats[caveat.name], self._schema.language)
            self._compiled[caveat.name] = compiled
        outcome = compiled.evaluate({**context, **_parameters(caveat.context)}, cost=self._cost)
        if outcome.verdict is Verdict.CONDITIONAL:
            return frozenset(outcome.missing)
        return outcome.verdict is Verdict.YES


@functools.lru_cache(maxsize=4096)
def _parameters(context: str) -> Mapping[str, Any]:
    found: dict[str, Any] = json.loads(context)
    return found
