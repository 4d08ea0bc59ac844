from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import pytest
from cases import OPERATIONS, TYPICAL

from cupola.core.dtype import FLOAT32
from cupola.core.errors import Unsupported
from cupola.kernels.choose import Implementation, Operation, same_at_all_sizes, using


def only_even(x):
    return [] if x % 2 == 0 else [f"{x} is odd", "only even numbers"]


DOUBLE = Operation(
    "double",
    (
        Implementation("shift", lambda x: ("shift", x << 1), only_even),
        Implementation("small", lambda x: ("small", x + x), lambda x: [] if x < 10 else ["10 at most"]),
        Implementation("reference", lambda x: ("reference", 2 * x)),
    ),
)
PICKY = Operation("halve", DOUBLE.implementations[:2])


@pytest.mark.parametrize(("x", "chosen"), [(4, "shift"), (5, "small"), (15, "reference")])
def test_the_first_that_honours_the_arguments_is_chosen(x, chosen):
    assert DOUBLE(None, x) == (chosen, 2 * x)


def test_a_named_one_is_taken_though_a_better_one_would_do():
    assert DOUBLE("reference", 4) == ("reference", 8)
    assert DOUBLE.choose("small", 4).name == "small"


def test_a_named_one_that_refuses_is_never_replaced():
    with pytest.raises(Unsupported) as caught:
        DOUBLE("shift", 15)
    assert str(caught.value) == (
        "double cannot be computed as asked (shift: 15 is odd, only even numbers)\n"
        "These can: reference; or leave implementation out."
    )


def test_where_none_can_every_reason_is_given():
    with pytest.raises(Unsupported) as caught:
        PICKY(None, 15)
    assert str(caught.value) == (
        "halve cannot be computed as asked (shift: 15 is odd, only even numbers; small: 10 at most)"
    )
    with pytest.raises(Unsupported, match=r"\(small: 10 at most\)\nThese can: shift;"):
        PICKY("small", 16)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(Unsupported) as caught:
        DOUBLE("refrence", 4)
    assert str(caught.value) == "double has no implementation 'refrence'\nDid you mean 'reference'?"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
def test_every_operation_refuses_a_name_that_it_lacks(operation):
    (case,) = [c for c in TYPICAL if c.operation is operation]
    with pytest.raises(Unsupported, match=f"^{operation.name} has no implementation 'xlaa'\nDid you mean 'xla'"):
        operation("xlaa", *case.arguments(case.given()["float32"], FLOAT32))


def test_inside_a_context_what_names_nothing_is_named():
    with using("reference"):
        assert DOUBLE(None, 4) == ("reference", 8)
        assert DOUBLE("shift", 4) == ("shift", 8)
        with using(None):
            assert DOUBLE(None, 4) == ("shift", 8)
        with pytest.raises(Unsupported, match="no implementation 'reference'"):
            PICKY(None, 4)
    assert DOUBLE(None, 4) == ("shift", 8)


def test_a_context_ends_with_an_error():
    with pytest.raises(ZeroDivisionError), using("reference"):
        _ = 1 / 0
    assert DOUBLE(None, 4) == ("shift", 8)


NAMED = Operation("named", tuple(Implementation(n, lambda x, k=k: x + k) for k, n in enumerate(["xla", "reference"])))


def test_what_was_compiled_outside_is_compiled_anew_inside():
    call = jax.jit(lambda x: NAMED(None, x))
    scanned = jax.jit(lambda x: jax.lax.scan(jax.checkpoint(lambda c, _: (NAMED(None, c), None)), x, length=2)[0])
    for _ in range(2):
        assert (call(1.0), scanned(1.0)) == (1.0, 1.0)
        with using("reference"):
            assert (call(1.0), scanned(1.0)) == (2.0, 3.0)


def test_what_is_kept_is_used_in_another_thread():
    with using("reference"):
        kept = same_at_all_sizes(partial(DOUBLE, None))
    with ThreadPoolExecutor(1) as other:
        assert other.submit(kept, 4).result() == ("reference", 8)
    assert kept(4) == ("reference", 8)
    assert DOUBLE(None, 4) == ("shift", 8)


def test_a_context_is_of_its_thread():
    with using("reference"), ThreadPoolExecutor(1) as other:
        assert other.submit(DOUBLE, None, 4).result() == ("shift", 8)
