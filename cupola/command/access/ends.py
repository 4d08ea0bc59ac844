"""How the commands of the permission graph end.

Invariant: what the graph refuses ends in one message that says what to type and exit code 2, never in a traceback.
"""

import enum
from typing import Any

import typer
from typer.core import TyperGroup

from cupola.access.decision import Verdict
from cupola.access.errors import AccessError
from cupola.command.errors import show


class Exit(enum.IntEnum):
    """What the exit code of a command says."""

    YES = 0
    NO = 1
    MISTAKE = 2
    CONDITIONAL = 3


EXITS = {Verdict.YES: Exit.YES, Verdict.NO: Exit.NO, Verdict.CONDITIONAL: Exit.CONDITIONAL}


class Refusing(TyperGroup):
    """A group whose commands may raise what the graph refuses."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except AccessError as error:
            show(error)
            raise typer.Exit(Exit.MISTAKE) from None
