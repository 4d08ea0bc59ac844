"""The base of every error that a user can cause, and those of values and their text.

An error says where, what is so, and what to type instead. Rooms above add their own kinds in
`core/errors.py`; none of them is ever raised for a mistake of ours (that is an ordinary exception).
"""

from typing import TypeVar

Mistake = TypeVar("Mistake", bound="CupolaError")


class CupolaError(Exception):
    """A mistake that the user can mend.

    Args:
        problem: what was asked, what is so, and why it cannot be.
        where: the path of the value, the file or the option at fault.
        remedy: what to type instead.
    """

    def __init__(self, problem: str, *, where: str = "", remedy: str = ""):
        super().__init__(problem, where, remedy)
        self.problem, self.where, self.remedy = problem, where, remedy

    def __str__(self) -> str:
        first = f"{self.where}: {self.problem}" if self.where else self.problem
        return f"{first}\n{self.remedy}" if self.remedy else first

    def __reduce__(self):
        return _rebuild, (type(self), self.problem, self.where, self.remedy)

    def under(self: Mistake, name: str) -> Mistake:
        """Returns the same error seen from the container that holds the value as `name`."""
        where = f"{name}.{self.where}" if self.where else name
        return type(self)(self.problem, where=where, remedy=self.remedy)


def _rebuild(kind: type[CupolaError], problem: str, where: str, remedy: str) -> CupolaError:
    return kind(problem, where=where, remedy=remedy)


class ConfigError(CupolaError, ValueError):
    """A value, its text or an override that does not fit."""


class UnboundError(ConfigError):
    """A shared width was used before any container filled it in."""


class GoldenMismatch(CupolaError, AssertionError):
    """A value no longer prints as its golden text."""
