"""Choosing an implementation of an operation: ask for one and get it or an error, or let it choose.

An operation is a list of implementations, fastest first; the last is the reference, which honours
everything. Invariant: an implementation either gives what the reference gives, within rounding, or
says why it cannot; a named one is never replaced by another.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from cupola.config.suggest import did_you_mean
from cupola.core.errors import Unsupported


def _refuses_nothing(*_: Any, **__: Any) -> list[str]:
    return []


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One way to compute an operation.

    Args:
        name: what a user types, such as "xla"; "cpu/avx2" is asked for by "cpu" too, which means the first that can.
        function: computes it; its arguments are the operation's.
        refuses: returns the reasons why it cannot honour these arguments; an empty list if it can.
    """

    name: str
    function: Callable[..., Any]
    refuses: Callable[..., list[str]] = _refuses_nothing

    def answers(self, asked: str) -> bool:
        """Whether this is the implementation, or one of the kind, that was asked for."""
        return asked in (self.name, self.name.split("/")[0])


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation and its implementations, the one to prefer first."""

    name: str
    implementations: tuple[Implementation, ...]

    def choose(self, asked: str | None, *args: Any, **kwargs: Any) -> Implementation:
        """Returns the implementation that was asked for, or the first that honours the arguments.

        Raises:
            Unsupported: the named one is unknown or cannot honour the arguments; every reason is given.
        """
        names = [i.name for i in self.implementations]
        if asked is not None and not any(i.answers(asked) for i in self.implementations):
            raise Unsupported(f"{self.name} has no implementation {asked!r}", remedy=did_you_mean(asked, names))
        reasons = {}
        for implementation in self.implementations:
            if asked is None or implementation.answers(asked):
                reasons[implementation.name] = implementation.refuses(*args, **kwargs)
                if not reasons[implementation.name]:
                    return implementation
        listed = "; ".join(f"{name}: {', '.join(why)}" for name, why in reasons.items())
        others = [
            i.name for i in self.implementations if not (asked and i.answers(asked)) and not i.refuses(*args, **kwargs)
        ]
        raise Unsupported(
            f"{self.name} cannot be computed as asked ({listed})",
            remedy=f"These can: {', '.join(others)}; or leave implementation out." if others else "",
        )

    def __call__(self, asked: str | None, *args: Any, **kwargs: Any) -> Any:
        """Computes with the implementation that `choose` returns."""
        return self.choose(asked, *args, **kwargs).function(*args, **kwargs)
