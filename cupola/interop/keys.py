"""The keys of a config.json of others, each read as what it must be.

Not here: what they mean (`families/`). Invariant: what is returned was checked; what is missing, of
another type or out of range is an error that names the key.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from cupola.core.errors import ConfigError

T = TypeVar("T")
_REQUIRED: Any = object()


class Keys:
    """A JSON object, read key by key. A key that holds null counts as missing.

    Args:
        held: the object.
        path: where it stands in the file, such as "rope_parameters.".
    """

    def __init__(self, held: Mapping[str, Any], path: str = ""):
        self._held, self._path = held, path

    def __contains__(self, name: str) -> bool:
        return self._held.get(name) is not None

    def refuse(self, name: str, problem: str, remedy: str) -> ConfigError:
        """Returns the error that says what is wrong with a key."""
        return ConfigError(f"{self._path}{name} {problem}", where="config.json", remedy=remedy)

    def any(self, name: str, default: Any = _REQUIRED) -> Any:
        """Returns what stands at a key, of whatever type.

        Raises:
            ConfigError: it is missing and has no default; so for every reader below.
        """
        if name in self:
            return self._held[name]
        if default is _REQUIRED:
            raise self.refuse(name, "is missing", "Add it to config.json: the model's card says what it is.")
        return default

    def whole(self, name: str, default: int | None = _REQUIRED, *, least: int = 1) -> Any:
        """Returns a whole number from `least`, or the default as it is."""
        value = self.any(name, default)
        if value is default or (type(value) is int and value >= least):
            return value
        raise self.refuse(name, f"is {value!r}", f"It is a whole number from {least}.")

    def number(self, name: str, default: float = _REQUIRED) -> float:
        """Returns a finite number above 0."""
        value = self.any(name, default)
        if type(value) in (int, float) and math.isfinite(value) and value > 0:
            return float(value)
        raise self.refuse(name, f"is {value!r}", "It is a number above 0.")

    def flag(self, name: str, default: bool = _REQUIRED) -> bool:
        """Returns true or false."""
        value = self.any(name, default)
        if isinstance(value, bool):
            return value
        raise self.refuse(name, f"is {value!r}", "It is true or false.")

    def choice(self, name: str, options: Mapping[str, T], default: str = _REQUIRED) -> T:
        """Returns what one of a few words stands for."""
        value = self.any(name, default)
        if isinstance(value, str) and value in options:
            return options[value]
        known = f"Supported: {', '.join(sorted(options))}."
        raise self.refuse(name, f"is {value!r}, which is not supported", known)

    def words(self, name: str) -> list[str]:
        """Returns a list of words; an empty one where the key is missing."""
        value = self.any(name, [])
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            return value
        raise self.refuse(name, f"is {value!r}", 'It is a list of words, such as ["full_attention"].')

    def inner(self, name: str) -> "Keys":
        """Returns the object at a key; an empty one where the key is missing."""
        value = self.any(name, {})
        if isinstance(value, Mapping):
            return Keys(value, f"{self._path}{name}.")
        raise self.refuse(name, f"is {value!r}", 'It is an object, such as {"rope_type": "default"}.')

    def only(self, name: str, supported: Any) -> None:
        """Checks that a key is missing or holds the one value that is supported.

        Raises:
            ConfigError: it asks for something else, which would otherwise be ignored.
        """
        if name in self and self._held[name] != supported:
            said = "be left out" if supported is None else f"be {supported!r}"
            raise self.refuse(name, f"is {self._held[name]!r}, which is not supported", f"It can only {said}.")
