"""Ids that sort by the time they were made: 48 bits of milliseconds, 80 of chance, in Crockford's base 32 (ULID).

Invariant: an id made after another sorts after it, whatever the clock does in between.
"""

import secrets
import time

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_LENGTH = 26


def new_ulid(after: str = "") -> str:
    """Returns a new id.

    Args:
        after: an id that it must sort after; "": none.
    """
    number = int(time.time() * 1000) << 80 | secrets.randbits(80)
    least = 0
    for digit in after:
        least = least * 32 + _VALUES[digit]
    number = max(number, least + 1)
    return "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(_LENGTH)))
