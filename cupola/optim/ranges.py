"""Numbers that must lie in a range, written as in mathematics: "[0, 1)"."""

import dataclasses

from cupola.config.value import Value
from cupola.core.errors import ConfigError


def check_range(owner: Value, name: str, interval: str) -> None:
    """Checks a field of `owner`.

    Args:
        interval: "[0, 1)" and the like; a round bracket leaves its end out.

    Raises:
        ConfigError: the number lies outside; the remedy names the interval and the field's default.
    """
    value = getattr(owner, name)
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    if above and below:
        return
    default = next(f.default for f in dataclasses.fields(owner) if f.name == name)
    usual = "" if default is dataclasses.MISSING or default is None else f", such as {name}={default!r}"
    raise ConfigError(f"{value!r} lies outside {interval}", where=name, remedy=f"Use a number in {interval}{usual}.")
