"""Choosing an implementation of an operation: ask for one and get it or an error, or let it choose.

An operation is a list of implementations, fastest first; the last is the reference, which honours
everything. Of those that honour the arguments, of the native ones only the highest level, the fastest is chosen as
it was measured at the nearest shapes (`measured.py`), and where they were not measured the first of the list.
Invariant: an implementation either gives what the reference gives, within rounding, or says why it cannot; a
named one is never replaced by another; the same call is given the same one for as long as a process lives.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from cupola.config.suggest import did_you_mean
from cupola.core.errors import Unsupported
from cupola.kernels import measured

XLA = "xla"
REFERENCE = "reference"
GAIN = 0.95
"""What is chosen before XLA takes at most this share of its time: less of a gain may be chance."""
_NAMED = jax.make_user_context(())
"""Pairs of an operation's name, "" for every other one, and what is asked of it."""
_BY_LIST = jax.make_user_context(False)
"""Whether the order of the list decides, whatever was measured."""


def using(implementation: str | None, *operations: "Operation") -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which each operation that is not asked for an implementation is asked for this one.

    Args:
        operations: only these, and the others as outside; none: every one.

    It is of this thread, and part of what compiled functions are kept by: a function that was compiled outside is
    compiled anew inside, never mistaken. None: the choice is free again.

        with using("reference"):
            loss = step(state, batch)

    Raises:
        Unsupported: inside, by an operation that has no such implementation or none that honours its arguments.
    """
    named = (
        dict(_NAMED.value) | {each.name: implementation for each in operations} if operations else {"": implementation}
    )
    return _NAMED(tuple(sorted(named.items())))


def same_at_all_sizes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function with choices that do not depend on sizes: of each operation the first that can is used.

    A server's steps are of many sizes, and a row has to be the same bits in each of them. What `using` named here and
    now is kept, whichever thread calls the function.
    """
    named = _NAMED.value

    def same(*args: Any, **kwargs: Any) -> Any:
        with _NAMED(named), _BY_LIST(True):
            return function(*args, **kwargs)

    return same


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

    @property
    def kind(self) -> str:
        """What its name begins with: "cpu" for the native ones of all levels."""
        return self.name.split("/")[0]

    def answers(self, asked: str) -> bool:
        """Whether this is the implementation, or one of the kind, that was asked for."""
        return asked in (self.name, self.kind)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one implementation in a choice.

    Args:
        reasons: why it cannot; none if it can.
        seconds: what it took at the nearest shapes that were measured; None where it was not.
    """

    implementation: Implementation
    reasons: tuple[str, ...] = ()
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """The implementation that was chosen, None where none can, and what was known of each.

    Args:
        nearest: the measurement that it was chosen by; None where there is none: the first that can was chosen.
    """

    chosen: Implementation | None
    verdicts: tuple[Verdict, ...]
    nearest: measured.Row | None = None


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation and its implementations, the one to prefer first."""

    name: str
    implementations: tuple[Implementation, ...]

    def choose(self, asked: str | None, *args: Any, **kwargs: Any) -> Implementation:
        """Returns the implementation that was asked for, here or by `using`, or else the fastest that can.

        Raises:
            Unsupported: the named one is unknown or cannot honour the arguments; every reason is given.
        """
        named = dict(_NAMED.value)
        asked = named.get(self.name, named.get("")) if asked is None else asked
        names = [i.name for i in self.implementations]
        if asked is not None and not any(i.answers(asked) for i in self.implementations):
            raise Unsupported(f"{self.name} has no implementation {asked!r}", remedy=did_you_mean(asked, names))
        choice = self.weigh(asked, *args, **kwargs)
        if choice.chosen is not None:
            return choice.chosen
        listed = "; ".join(f"{v.implementation.name}: {', '.join(v.reasons)}" for v in choice.verdicts)
        others = [
            i.name for i in self.implementations if not (asked and i.answers(asked)) and not i.refuses(*args, **kwargs)
        ]
        raise Unsupported(
            f"{self.name} cannot be computed as asked ({listed})",
            remedy=f"These can: {', '.join(others)}; or leave implementation out." if others else "",
        )

    def weigh(self, asked: str | None, *args: Any, **kwargs: Any) -> Choice:
        """Returns which of the implementations that were asked for is chosen, and why not the others."""
        asked_for = [i for i in self.implementations if asked is None or i.answers(asked)]
        reasons = {i.name: tuple(i.refuses(*args, **kwargs)) for i in asked_for}
        able = candidates(i for i in asked_for if not reasons[i.name])
        by_size = asked is None and not _BY_LIST.value
        names = [i.name for i in able]
        nearest = measured.nearest(self.name, measured.call_of(args, kwargs), names) if by_size else None
        seconds = nearest.seconds if nearest else {}
        verdicts = tuple(Verdict(i, reasons[i.name], seconds.get(i.name)) for i in asked_for)
        return Choice(_fastest(able, seconds), verdicts, nearest)

    def __call__(self, asked: str | None, *args: Any, **kwargs: Any) -> Any:
        """Computes with the implementation that `choose` returns."""
        return self.choose(asked, *args, **kwargs).function(*args, **kwargs)


def candidates(able: Iterable[Implementation]) -> list[Implementation]:
    """Returns what is chosen from: the first of each kind, so that levels never take turns; the reference alone if at all."""
    first: dict[str, Implementation] = {}
    for each in able:
        first.setdefault(each.kind, each)
    return [each for kind, each in first.items() if kind != REFERENCE or len(first) == 1]


def _fastest(able: list[Implementation], seconds: Mapping[str, float]) -> Implementation | None:
    if not able or not seconds:
        return able[0] if able else None
    best = min(able, key=lambda i: seconds[i.name])
    compiled = next((i for i in able if i.name == XLA), best)
    return best if seconds[best.name] <= GAIN * seconds[compiled.name] else compiled
