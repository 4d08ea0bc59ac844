import pytest

from cupola.config.diff import Change, diff, diff_lines, text
from cupola.config.errors import ConfigError
from cupola.config.value import Value, bound

HERE = __name__


class Norm(Value):
    width: int = bound("width")
    scale: float = 1.0


class Layer(Value):
    width: int = bound("width")


class Model(Value):
    width: int
    norm: Norm | Layer | None = Norm()
    items: tuple[Norm, ...] = (Norm(),)
    name: str = "a"


def test_equal_values_do_not_differ():
    assert diff(Model(width=8), Model(width=8)) == []
    assert text([]) == ""


def test_a_shared_width_is_one_change():
    assert diff(Model(width=8), Model(width=16)) == [Change("width", "8", "16")]


def test_changes_stand_in_the_order_of_the_text():
    a = Model(width=8, norm=Norm(), items=(Norm(),))
    b = Model(width=8, norm=Layer(), items=(Norm(scale=2.0), Norm()), name="b")
    assert text(diff(a, b)) == "\n".join(
        [
            f"~ norm: {HERE}:Norm -> {HERE}:Layer",
            "- norm.scale = 1.0",
            "~ items.0.scale: 1.0 -> 2.0",
            f"+ items.1 = {HERE}:Norm",
            "+ items.1.scale = 1.0",
            "~ name: 'a' -> 'b'",
        ]
    )
    assert {c.path for c in diff(a, b)} == {c.path for c in diff(b, a)}


def test_lines_that_moved_are_no_change():
    assert diff_lines({"a": "1", "b": "2"}, {"b": "2", "a": "1"}) == []


def test_what_has_no_text_is_refused():
    class Local(Value):
        pass

    with pytest.raises(ConfigError, match="module level"):
        diff(Local(), Local())
