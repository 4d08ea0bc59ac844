import pytest

from cupola.core.errors import ConfigError
from cupola.serve.request import Request
from cupola.serve.sequence import Plan, Row, Sequence
from cupola.serve.shapes import Shape, Shapes


def plan(decodes: int, chunks=()) -> Plan:
    sequence = Sequence(request=Request(id="x", prompt=(1,) * 600), arrival=1)
    rows = tuple(Row(sequence, 0, count, True) for count in chunks)
    return Plan(tuple(Row(sequence, 5, 1, True) for _ in range(decodes)), rows)


def test_every_plan_fits_an_essential_shape():
    shapes = Shapes()
    for decodes in range(33):
        for chunks in ((), (1,), (64,), (65,), (512,), (64, 3), (64, 64, 64, 64)):
            assert any(shapes.holds(shape, plan(decodes, chunks)) for shape in shapes.essential), (decodes, chunks)


def test_what_exceeds_a_shape_does_not_fit():
    shape = Shape(4, 1, 1, 64)
    assert not Shapes().holds(shape, plan(5))
    assert not Shapes().holds(shape, plan(1, (65,)))
    assert not Shapes().holds(shape, plan(1, (5, 5)))


def test_all_shapes_are_few_and_begin_with_the_essential_ones():
    shapes = Shapes()
    assert shapes.all[: len(shapes.essential)] == shapes.essential
    assert len(set(shapes.all)) == len(shapes.all) < 16


def test_steps_are_never_smaller_than_what_a_cpu_multiplies_alike():
    assert (Shape(1, 1, 0, 0).tokens, Shape(1, 1, 0, 0).draws) == (8, 8)
    assert Shape(4, 3, 2, 64).tokens == 140


def test_shapes_say_what_they_are():
    assert [str(Shape(4, 1, 0, 0)), str(Shape(0, 1, 1, 64)), str(Shape(4, 3, 2, 64))] == [
        "4 x 1",
        "1 x 64",
        "4 x 3 + 2 x 64",
    ]


@pytest.mark.parametrize("change", [{"decodes": (4, 1)}, {"mixed": (4,)}, {"decodes": ()}])
def test_sizes_that_leave_a_plan_without_a_shape_are_refused(change):
    with pytest.raises(ConfigError):
        Shapes(**change)
