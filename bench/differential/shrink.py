"""The smallest world that still shows a difference, and how it is written down."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

from differential.cupola_side import relationship
from differential.worlds import World


def shrink(world: World, fails: Callable[[World], bool]) -> World:
    """Returns a world that fails and from which no single part can be left out.

    Args:
        world: one that fails.
        fails: asked about smaller worlds.
    """
    while (smaller := next((one for one in _smaller(world) if fails(one)), None)) is not None:
        world = smaller
    return world


def _smaller(world: World) -> Iterator[World]:
    for field in ("questions", "relationships", "relations"):
        parts = getattr(world, field)
        for size in (len(parts) // 2, 1):
            for start in range(0, len(parts), size) if size else ():
                yield dataclasses.replace(world, **{field: parts[:start] + parts[start + size :]})
    for i, (type, name, value) in enumerate(world.relations):
        for less in _less(value):
            changed = (*world.relations[:i], (type, name, less), *world.relations[i + 1 :])
            yield dataclasses.replace(world, relations=changed)


def _less(value: Any) -> Iterator[Any]:
    """Yields a list of subjects with one less, or an expression with an operand less."""
    if isinstance(value, list):
        yield from (value[:i] + value[i + 1 :] for i in range(len(value)) if len(value) > 1)
    elif isinstance(value, tuple):
        yield from value[::2]
        if len(value) > 3:
            yield from (value[2:], value[:-2])
        for i in range(0, len(value), 2):
            yield from ((*value[:i], less, *value[i + 1 :]) for less in _less(value[i]))


def validation_file(world: World) -> str:
    """Returns a world as SpiceDB's validation files are written, with its questions as comments."""
    lines = ["schema: |-", *(f"  {line}" for line in world.schema.splitlines()), "relationships: |-"]
    lines += [f"  {relationship(*parts)}" for parts in world.relationships]
    lines += [f"# {json.dumps(question)}" for question in world.questions]
    return "\n".join(lines)
