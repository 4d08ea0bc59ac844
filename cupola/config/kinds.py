"""Kinds of leaf that print as `name('text')`: paths here, number formats in `core/dtype.py`.

Invariant: decode(encode(value)) == value for every value of a registered kind.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from cupola.config.errors import ConfigError
from cupola.config.suggest import did_you_mean


@dataclasses.dataclass(frozen=True)
class Kind:
    """How the values of one type are written and read.

    Args:
        type: the type; the kind of the nearest base holds for a subclass that has none of its own.
        name: what stands before the text, such as "dtype".
        encode: gives the text of a value.
        decode: gives the value of a text; raises TypeError or ValueError when there is none.
        examples: texts to show to whoever writes another.
    """

    type: type
    name: str
    encode: Callable[[Any], str]
    decode: Callable[[str], Any]
    examples: tuple[str, ...] = ()

    def read(self, text: str) -> Any:
        """Returns the value of a text.

        Raises:
            ConfigError: the text is of no such value.
        """
        try:
            return self.decode(text)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{text!r} is no {self.name}: {error}", remedy=did_you_mean(text, self.examples)
            ) from None


_BY_TYPE: dict[type, Kind] = {}


def register(
    kind: type, name: str, encode: Callable[[Any], str], decode: Callable[[str], Any], examples: tuple[str, ...] = ()
) -> None:
    """Makes every value of type `kind` a leaf that prints as `name('text')`.

    Example:
        register(np.dtype, "dtype", lambda d: d.name, np.dtype, ("float32",))     # dtype('float32')
    """
    taken = named(name)
    if taken is not None and taken.type is not kind:
        raise ValueError(f"the kind {name!r} is taken by {taken.type.__name__}")
    _BY_TYPE[kind] = Kind(kind, name, encode, decode, examples)


def of(type_: type) -> Kind | None:
    """Returns the kind of a type, that of its nearest registered base, or None."""
    return next((_BY_TYPE[base] for base in type_.__mro__ if base in _BY_TYPE), None)


def named(name: str) -> Kind | None:
    """Returns the kind that prints under this name, or None."""
    return next((kind for kind in _BY_TYPE.values() if kind.name == name), None)


def names() -> list[str]:
    """Returns the names of all kinds."""
    return [kind.name for kind in _BY_TYPE.values()]


register(pathlib.Path, "path", str, pathlib.Path, ("runs/first",))
register(pathlib.PurePosixPath, "posix_path", str, pathlib.PurePosixPath, ("runs/first",))
register(pathlib.PureWindowsPath, "windows_path", str, pathlib.PureWindowsPath, ("runs/first",))
