import collections.abc
import enum
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Optional

import numpy as np
import pytest

from cupola.config.annotation import Word, conform, describe
from cupola.config.errors import ConfigError
from cupola.config.value import Value


class Gate(enum.Enum):
    SILU = 1
    GELU = 2


class Base(Value):
    pass


class Derived(Base):
    rate: float = 1.0


Steps = NewType("Steps", int)
T = typing.TypeVar("T", bound=int)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (3, float | None, 3.0),
        (3, int | float, 3),
        (3, float | int, 3),
        (True, bool | int, True),
        (None, Optional[int], None),  # noqa: UP045
        (None, None, None),
        (3, Annotated[float, "seconds"], 3.0),
        (3, Steps, 3),
        (3, T, 3),
        (Word("SILU"), Gate, Gate.SILU),
        ("GELU", Gate | None, Gate.GELU),
        (Word("hello"), str, "hello"),
        (Word("fast"), Literal["fast", "slow"], "fast"),
        (Word("SILU"), Gate | str, Gate.SILU),
        (2, Literal[1, 2], 2),
        ((1, 2), tuple[float, ...], (1.0, 2.0)),
        ((1, "a"), tuple[int, str], (1, "a")),
        ((), tuple[int, ...], ()),
        (((1,), (2,)), tuple[tuple[float, ...], ...], ((1.0,), (2.0,))),
        ((1, "a"), tuple, (1, "a")),
        (frozenset({1}), frozenset[float], frozenset({1.0})),
        (Derived(), Base, Derived()),
        (Derived, type[Base], Derived),
        (int, type, int),
        (len, collections.abc.Callable[[Any], int], len),
        (Derived(), Any, Derived()),
        (Word("bfloat16"), np.dtype, np.dtype("bfloat16")),
        ("a/b", Path, Path("a/b")),
        (b"x", bytes, b"x"),
        ([1], list[int], [1]),
    ],
)
def test_what_fits_comes_back_as_the_type_has_it(value, annotation, expected):
    conformed = conform(value, annotation)
    assert conformed == expected
    assert type(conformed) is type(expected)
    again = conform(conformed, annotation)
    assert again == conformed
    assert repr(again) == repr(conformed)


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        (True, int, r"expects int, but got True \(bool\)\nWrite, for example, 8"),
        (True, float, r"expects float, but got True"),
        (1, bool, r"expects bool, but got 1 \(int\)\nWrite, for example, True or False"),
        (1e6, int, r"expects int, but got 1000000\.0 \(float\)\nWrite 1000000\."),
        (2.5, int, r"Write, for example, 8"),
        ("a", int | None, r"expects int \| None, but got 'a'(?s:.*)8 or None"),
        (3, str, "expects str, but got 3"),
        ("silu", Gate, "'silu' is no Gate\nDid you mean 'SILU'"),
        ("silu", Gate | None, "Did you mean 'SILU'"),
        (1, Gate, r"expects Gate, but got 1 \(int\)\nWrite, for example, SILU or GELU"),
        ("fats", Literal["fast", "slow"], "Did you mean 'fast'"),
        (True, Literal[1, 2], "True is none of the values"),
        ((1, "x"), tuple[int, ...], r"^1: expects int, but got 'x'"),
        ((1,), tuple[int, str], r"1 items where 2 are due\nWrite, for example, \(8, 'a text'\)"),
        (3, tuple[int, ...], r"expects tuple\[int, \.\.\.\], but got 3(?s:.*)\(8, 8\)"),
        ([1], tuple[int, ...], r"but got \[1\]"),
        (1, frozenset[int], "expects frozenset"),
        (3, Base, r"expects Base, but got 3 \(int\)\nWrite, for example, .*:Derived"),
        (Base, type[Derived], r"(?s)expects type\[.*Derived\].*type\[.*:Derived\]"),
        (3, collections.abc.Callable, "expects Callable"),
        ("float31", np.dtype, "'float31' is no dtype(?s:.*)Did you mean 'float32'"),
        (3, np.dtype, r"expects dtype, but got 3(?s:.*)dtype\('float32'\)"),
        (Word("none"), Any, "the bare word 'none' could mean anything"),
        ((1, Word("none")), Any, "could mean anything|expects Any"),
        (Word("x"), int, "expects int, but got the bare word 'x'"),
        ("x", None, "expects None"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_type_and_an_example(value, annotation, message):
    with pytest.raises(ConfigError, match=message):
        conform(value, annotation)


def test_an_annotation_reads_as_a_person_would_write_it():
    assert describe(Optional[int]) == "int | None"  # noqa: UP045
    assert describe(tuple[str, ...]) == "tuple[str, ...]"
    assert describe(Base) == "Base"
    assert describe(Any) == "Any"
