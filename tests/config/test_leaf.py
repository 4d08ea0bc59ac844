import dataclasses
import enum
import math
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest

from cupola.config.annotation import Word
from cupola.config.errors import ConfigError
from cupola.config.leaf import read, write
from cupola.config.value import Value, bound

HERE = __name__


class Gate(enum.Enum):
    SILU = 1


class Way(enum.Flag):
    IN = 1
    OUT = 2


class Rate(Value):
    rate: float
    width: int = bound("width")
    gate: Gate = Gate.SILU


@dataclasses.dataclass(frozen=True)
class Window:
    left: int
    right: int = 0
    both: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Open:
    left: int = 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-3, "-3"),
        (1e-300, "1e-300"),
        (-0.0, "-0.0"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (None, "None"),
        (True, "True"),
        ("a\n'b'\u2028 = #", repr("a\n'b'\u2028 = #")),
        (b"\x00'\"", repr(b"\x00'\"")),
        (Gate.SILU, f"{HERE}:Gate.SILU"),
        (len, "builtins:len"),
        (Rate, f"type[{HERE}:Rate]"),
        ((), "()"),
        ((1,), "(1,)"),
        ((1, (2.5, "a"), None), "(1, (2.5, 'a'), None)"),
        (frozenset({2, 1}), "{1, 2}"),
        (frozenset(), "{}"),
        (Path("a/b"), "path('a/b')"),
        (PurePosixPath("a"), "posix_path('a')"),
        (PureWindowsPath("c:/a"), r"windows_path('c:\\a')"),
        (np.dtype("bfloat16"), "dtype('bfloat16')"),
        (Window(1), f"{HERE}:Window(left=1, right=0)"),
        (Rate(rate=1), f"{HERE}:Rate(rate=1.0, gate={HERE}:Gate.SILU)"),
        ((Rate(rate=2, width=4),), f"({HERE}:Rate(rate=2.0, width=4, gate={HERE}:Gate.SILU),)"),
    ],
)
def test_a_leaf_has_one_text_that_reads_as_the_same_value(value, text):
    assert write(value) == text
    assert read(text) == value
    assert type(read(text)) is type(value)
    assert write(read(text)) == text


def test_a_number_that_is_none_stays_so():
    assert write(math.nan) == "nan"
    assert math.isnan(read("nan"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" ( 1 , 2 , ) ", (1, 2)),
        ("1_000", 1000),
        ("+3", 3),
        (".5", 0.5),
        ("3e-4", 3e-4),
        ('"a"', "a"),
        (f"{HERE}:Rate(rate=3)", Rate(rate=3.0)),
        (f"{HERE}:Rate(rate=3, gate=SILU)", Rate(rate=3.0)),
        (f"{HERE}:Window(left=1,)", Window(1)),
    ],
)
def test_what_a_person_may_write_instead(text, value):
    assert read(text) == value
    assert type(read(text)) is type(value)


def test_a_bare_word_waits_for_its_field():
    assert read("SILU") == Word("SILU")
    assert isinstance(read("(a, 1)")[0], Word)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "Use a tuple"),
        ({"a": 1}, "Use a tuple of pairs"),
        ({1}, "Use a frozenset"),
        (np.float32(1), "has no text"),
        (np.zeros(2), "has no text"),
        (object(), "has no text"),
        (Open(), "has no text"),
        (lambda x: x, "Define it at module level"),
        (Way.IN | Way.OUT, "cannot be found again"),
        (Rate(rate="fast"), r"^rate: expects float, but got 'fast'"),
        ((1, [2]), "Use a tuple"),
    ],
)
def test_what_no_text_rebuilds_is_refused(value, message):
    with pytest.raises(ConfigError, match=message):
        write(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a value is due"),
        ("1 2", "the end is due at '2'"),
        ("(1", r"',' or '\)' is due after it"),
        ("(1)", r"is no tuple\nWrite \(1,\)"),
        ("[1]", r"a value is due at '\[1\]'"),
        ("{(1, 2), 3", "is due after it"),
        ("1.2.3", "cannot be read"),
        ("0x10", "cannot be read"),
        ("1 + 1", r"the end is due at '\+ 1'"),
        ("__import__('os')", "'__import__' is no kind of leaf"),
        ("dtyp('float32')", "Did you mean 'dtype'"),
        ("dtype(3)", r"Write dtype\('\.\.\.'\)"),
        ("dtype('float31')", "'float31' is no dtype"),
        ("dtype('float32'", r"'\)' is due"),
        ("'a", "a value is due"),
        (r"'\x'", "is no text"),
        ("builtins:len(1)", r"the end is due at '\(1\)'"),
        ("builtins:list", r"list is no value\n.*type\[builtins:list\]"),
        (f"{HERE}:Open", "Open is no value"),
        ("type[builtins:len]", "module:Class is due"),
        ("type[3]", "module:Class is due"),
        (f"{HERE}:Rate", r"Rate needs rate\nAdd rate = "),
        (f"{HERE}:Rate(3)", "field=... is due"),
        (f"{HERE}:Rate(rate)", "'=' is due"),
        (f"{HERE}:Rate(rat=3)", "Rate has no field 'rat'\nDid you mean 'rate'"),
        (f"{HERE}:Rate(rate=True)", "^rate: expects float, but got True"),
        (f"{HERE}:Window(left=1, both=2)", "Window has no field 'both'"),
        (f"{{{HERE}:Listed(items=None)}}", "Items of a set"),
    ],
)
def test_what_is_no_leaf_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        read(text)


@dataclasses.dataclass(frozen=True)
class Listed:
    items: Any

    __hash__ = None
