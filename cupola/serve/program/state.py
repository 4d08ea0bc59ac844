"""What a program's function writes on: `+=`, turns, variables and branches.

Not here: when it is done (`executor.py`).
"""

import contextlib
import enum
import inspect
import os
from collections.abc import Iterator, Sequence
from typing import Any

from cupola.serve.program.errors import ProgramError
from cupola.serve.program.executor import Executor
from cupola.serve.program.expression import Close, Open, expression
from cupola.serve.program.transcript import Role, Transcript
from cupola.serve.program.variable import Result

_BETWEEN = (__name__, "contextlib", "jaxtyping")
"""Modules with frames between a program's line and this file; the last checks shapes in tests."""


class Join(enum.Enum):
    """What becomes of branches when they are joined."""

    VARIABLES = "variables"
    """Each of their variables becomes a list of this state's, in the order of the branches."""
    CONCATENATE = "concatenate"
    """What they said since the fork is added to this state, in the order of the branches."""


class State:
    """A text, or turns, that grow while a program runs, and the variables that were filled in.

    Adding to it returns at once; only reading (`[]`, `result`, `stream`, `wait`) waits. What goes wrong
    in between is raised there, with the line of the program.
    """

    def __init__(self, executor: Executor):
        self._executor = executor
        self.returned: Any = None
        """What the program's function returned."""

    def __iadd__(self, addition: Any) -> "State":
        place = _place()
        for primitive in expression(addition).primitives():
            self._executor.append(primitive, place)
        return self

    def __getitem__(self, name: str) -> Any:
        """Returns a variable's text, or the list of texts of one that was gathered from branches."""
        result = self._executor.variable(name).wait()
        return [one.text for one in result] if isinstance(result, list) else result.text

    def result(self, name: str) -> Result | list[Result]:
        """Returns a variable's text with its tokens, scores, end and usage.

        Raises:
            ProgramError: there is no such variable.
            CupolaError: what went wrong on the way to it.
        """
        return self._executor.variable(name).wait()

    def stream(self, name: str) -> Iterator[str]:
        """Yields a variable's text in pieces as it is generated; else as `result`.

        A variable whose thoughts are separated comes as a whole.
        """
        return self._executor.variable(name).stream()

    def wait(self) -> Transcript:
        """Returns all that was said, once everything is done; raises what went wrong."""
        return self._executor.wait()

    @property
    def text(self) -> str:
        """All that was said, without marks between turns; waits for it."""
        return self.wait().text

    @property
    def messages(self) -> list[dict[str, str]]:
        """The turns as chat messages; waits for them."""
        return [{"role": turn.role.value, "content": turn.text} for turn in self.wait().all if turn.role is not None]

    def fork(self, count: int) -> tuple["State", ...]:
        """Returns branches that go on from here, at the same time and apart from each other.

        The back-end is given their common prefix first, so that each finds it computed.

        Raises:
            ProgramError: less than one branch.
        """
        if count < 1:
            raise ProgramError(f"a fork into {count} branches", where=_place(), remedy="Use 1 or more.")
        return tuple(State(branch) for branch in self._executor.fork(count, _place()))

    def join(self, branches: Sequence["State"], how: Join = Join.VARIABLES) -> None:
        """Takes what branches made into this state, once they have made it; does not wait.

        Raises:
            ProgramError: the state itself is among them.
        """
        if any(branch._executor is self._executor for branch in branches):
            raise ProgramError("a state joins itself", where=_place(), remedy="Join what `fork` returned.")
        executors = [branch._executor for branch in branches]
        if how is Join.VARIABLES:
            self._executor.gather(executors, _place())
        else:
            self._executor.concatenate(executors, _place())

    @contextlib.contextmanager
    def var_scope(self, name: str) -> Iterator[None]:
        """Puts all text that is added inside, written or generated, into a variable."""
        place = _place()
        begin = self._executor.open_scope()
        yield
        self._executor.close_scope(name, begin, place)

    def system(self) -> "contextlib.AbstractContextManager[None]":
        """Everything added inside is one turn of the system."""
        return self._turn(Role.SYSTEM)

    def user(self) -> "contextlib.AbstractContextManager[None]":
        """Everything added inside is one turn of the user."""
        return self._turn(Role.USER)

    def assistant(self) -> "contextlib.AbstractContextManager[None]":
        """Everything added inside is one turn of the assistant."""
        return self._turn(Role.ASSISTANT)

    @contextlib.contextmanager
    def _turn(self, role: Role) -> Iterator[None]:
        place = _place()
        self._executor.append(Open(role), place)
        yield
        self._executor.append(Close(), place)


def _place() -> str:
    """The program's file and line: the nearest that is not ours, nor of what stands between."""
    frame = inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(_BETWEEN):
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}" if frame else "a program"
