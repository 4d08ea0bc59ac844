"""Things of a module by name: functions, classes and enum members as `module:qualname`.

Invariant: a name that is written finds the same object again; finding one runs no code but the
import of a module that the reader allows.
"""

import enum
import importlib
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from cupola.config.errors import ConfigError
from cupola.config.suggest import did_you_mean

PATTERN = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*"
HOME = __name__.split(".")[0]


def name_of(thing: Any) -> str:
    """Returns `module:qualname`; a name in a public module is preferred to one in a private module.

    Raises:
        ConfigError: nothing of that name is found in its module, as for lambdas and what a function makes.
    """
    member = f".{thing.name}" if isinstance(thing, enum.Enum) else ""
    owner = type(thing) if member else thing
    qualname = str(getattr(owner, "__qualname__", type(owner).__qualname__)) + member
    for home in _homes(str(getattr(owner, "__module__", ""))):
        name = f"{home}:{qualname}"
        if re.fullmatch(PATTERN, name) and _walk(sys.modules.get(home), qualname) is thing:
            return name
    raise ConfigError(
        f"{qualname} cannot be found again by name in module {getattr(owner, '__module__', None)!r}",
        remedy="Define it at module level, under its own name, and use that; for fixed arguments write a Value "
        "with a __call__.",
    )


def find(name: str, allow: tuple[str, ...] = ()) -> Any:
    """Returns what `module:qualname` names.

    Args:
        name: such as "cupola.optim.optimizer:Muon".
        allow: packages that may be imported for it, beside this one and what is already imported.

    Raises:
        ConfigError: no such thing, or its module is not imported and not allowed.
    """
    home, _, qualname = name.partition(":")
    module = sys.modules.get(home) or _import(home, allow)
    found = _walk(module, qualname)
    if found is None:
        known = [n for n, v in vars(module).items() if isinstance(v, type) or callable(v)]
        first, *rest = qualname.split(".")
        if rest and (owner := vars(module).get(first)) is not None:
            known = [f"{first}.{n}" for n in getattr(owner, "__members__", vars(owner)) if not n.startswith("_")]
        raise ConfigError(f"{home} has no {qualname!r}", remedy=did_you_mean(qualname, known))
    return found


def _import(home: str, allow: tuple[str, ...]) -> ModuleType:
    if not any(home == package or home.startswith(f"{package}.") for package in (HOME, *allow)):
        raise ConfigError(
            f"module {home!r} is not imported, and reading a text does not run other people's code",
            remedy=f"Import {home} first if you trust it, or pass allow=({home.split('.')[0]!r},).",
        )
    try:
        return importlib.import_module(home)
    except ModuleNotFoundError as error:
        if not f"{home}.".startswith(f"{error.name}."):
            raise
        near = [m for m in sys.modules if m.split(".")[0] == home.split(".")[0]]
        raise ConfigError(f"there is no module {home!r}", remedy=did_you_mean(home, near)) from None


def _walk(start: Any, qualname: str) -> Any:
    """Goes from a module through classes to a class, a callable or an enum member; None if it is not there."""
    held = start
    for part in qualname.split("."):
        if isinstance(held, enum.EnumType) and part in held.__members__:
            held = held.__members__[part]
        else:
            held = getattr(held, part, None)
        if held is None or isinstance(held, ModuleType):
            return None
    return held if callable(held) or isinstance(held, enum.Enum) else None


def _homes(module: str) -> Iterator[str]:
    """Where a thing may be found: for one of a private module, first the public ones that show it."""
    if _is_private(module):
        top = module.split(".")[0]
        public = [m for m in list(sys.modules) if m.split(".")[0] == top and not _is_private(m)]
        yield from sorted(public, key=lambda m: (m.count("."), m))
    yield module


def _is_private(module: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in module.split("."))
