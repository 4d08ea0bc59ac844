"""What differs between two values, leaf by leaf.

Fields that a container fills in are left out, so a changed width is one change however many
modules share it. Not here: comparing with a kept text (`golden.py`).
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from cupola.config.text import lines


@dataclasses.dataclass(frozen=True)
class Change:
    """One leaf that differs, as its texts.

    Args:
        path: where it stands.
        before: its text in the first value; None if it is not there.
        after: its text in the second value; None if it is not there.
    """

    path: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.path} = {self.after}"
        if self.after is None:
            return f"- {self.path} = {self.before}"
        return f"~ {self.path}: {self.before} -> {self.after}"


def diff(a: Any, b: Any) -> list[Change]:
    """Returns what turns `a` into `b`, in the order of their texts; empty when they are equal.

    Raises:
        ConfigError: a leaf that has no text.
    """
    return diff_lines(lines(a), lines(b))


def diff_lines(before: dict[str, str], after: dict[str, str]) -> list[Change]:
    """Returns what turns the lines {path: text} of one value into those of another."""
    order, at = list(after), 0
    for path in before:
        if path in after:
            at = order.index(path) + 1
        else:
            order.insert(at, path)
            at += 1
    return [Change(p, before.get(p), after.get(p)) for p in order if before.get(p) != after.get(p)]


def text(changes: Iterable[Change]) -> str:
    """Returns the changes one per line: `+ path = x`, `- path = x` or `~ path: x -> y`."""
    return "\n".join(map(str, changes))
