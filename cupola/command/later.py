"""Commands that are imported when they are asked for: who asks for one waits for no other, and needs no package of one.

Not here: what is answered where a package is missing (`extra.py`).
"""

import importlib
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command as made_of

from cupola.command import extra


class Later(NamedTuple):
    """Where a command is.

    Args:
        module: that has it.
        name: of the function, or of the group of commands, in it.
        extra: that brings what it needs; "": the package itself does.
    """

    module: str
    name: str
    extra: str = ""


def group_of(commands: dict[str, Later]) -> type[TyperGroup]:
    """Returns the class of a group that has these commands besides its own."""

    class LaterGroup(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            own = [name for name in super().list_commands(ctx) if name not in commands]
            return [*commands, *own]

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            if cmd_name in commands and cmd_name not in self.commands:
                self.commands[cmd_name] = load(cmd_name, commands[cmd_name])
            return super().get_command(ctx, cmd_name)

    return LaterGroup


def load(command: str, later: Later) -> Any:
    """Returns a command; where a package is missing, one that answers with how to install it.

    Raises:
        ModuleNotFoundError: what is missing is a module of our own, which no extra brings.
    """
    holder = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    try:
        found = getattr(importlib.import_module(later.module), later.name)
    except ModuleNotFoundError as error:
        extra.explain(holder, later.extra, error, commands=(command,))
        return made_of(holder)
    if not isinstance(found, typer.Typer):
        holder.command(command)(found)
        return made_of(holder)
    holder.add_typer(found, name=command)
    made: Any = made_of(holder)
    return made.commands[command]
