"""Follows JSON text one character at a time: whether it can still become valid, and how deep it is.

Not here: its values; whoever needs them parses the whole once it is complete.
Invariant: `feed` is false for the first character with which no valid text begins, and `done` is
true exactly when the text is a whole object or list.
"""

import json

ESCAPES = frozenset('"\\/bfnrt')
HEX = frozenset("0123456789abcdefABCDEF")
SCALAR = frozenset("-+.0123456789eEtrufalsn")
WORDS = ("true", "false", "null")


class JsonScanner:
    """Reads one object or list.

    After each character: `depth` counts the open brackets, `string` is the string that has just ended
    (else None) and `string_is_key` says whether it is a key.
    """

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._expect = "value"
        self._written: list[str] | None = None  # of the string being read
        self._escape = 0  # 0: none; 1: after a backslash; 2 to 5: hexadecimal digits to come, and one
        self._scalar = ""
        self.string: str | None = None
        self.string_is_key = False
        self.done = False

    @property
    def depth(self) -> int:
        """How many brackets are open."""
        return len(self._stack)

    def feed(self, char: str) -> bool:
        """Takes the next character and returns whether valid text can still come of it."""
        self.string = None
        if self.done:
            return char.isspace()
        if self._written is not None:
            return self._in_string(char)
        if char in SCALAR and (self._scalar or self._expect in ("value", "value or end")):
            self._scalar += char
            return _may_be_scalar(self._scalar)
        if self._scalar and not self._end_scalar():
            return False
        return char in " \t\n\r" or self._structure(char)

    def _structure(self, char: str) -> bool:
        expect = self._expect
        if char == '"' and expect in ("value", "value or end", "key", "key or end"):
            self._written, self.string_is_key = [char], expect.startswith("key")
            return True
        if char in "{[" and expect in ("value", "value or end"):
            self._stack.append(char)
            self._expect = "key or end" if char == "{" else "value or end"
            return True
        if char == ":" and expect == "colon":
            self._expect = "value"
            return True
        if char == "," and expect == "comma or end":
            self._expect = "key" if self._stack[-1] == "{" else "value"
            return True
        if char in "}]" and expect.endswith("or end") and self._stack[-1] == ("{" if char == "}" else "["):
            self._stack.pop()
            self._expect, self.done = "comma or end", not self._stack
            return True
        return False

    def _in_string(self, char: str) -> bool:
        written = self._written or []
        written.append(char)
        if self._escape == 1:
            self._escape = 5 if char == "u" else 0
            return char == "u" or char in ESCAPES
        if self._escape:
            self._escape = self._escape - 1 if self._escape > 2 else 0
            return char in HEX
        if char == "\\":
            self._escape = 1
        elif char == '"':
            self.string, self._written = json.loads("".join(written)), None
            self._expect = "colon" if self.string_is_key else "comma or end"
        return char >= " "

    def _end_scalar(self) -> bool:
        scalar, self._scalar, self._expect = self._scalar, "", "comma or end"
        try:
            json.loads(scalar)
        except ValueError:
            return False
        return bool(self._stack)


def _may_be_scalar(text: str) -> bool:
    if text[0] in "tfn":
        return any(word.startswith(text) for word in WORDS)
    return not set(text) - set("-+.0123456789eE")
