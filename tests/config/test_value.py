import dataclasses
import operator

import pytest

from cupola.config.errors import ConfigError, UnboundError
from cupola.config.value import Unbound, Value, bound


class Heads(Value):
    width: int = bound("residual width")
    heads: int = 2

    def check(self):
        if self.width % self.heads:
            raise ConfigError(f"{self.heads} heads do not divide width {self.width}", where="heads")


class Norm(Value):
    width: int = bound("residual width")
    scale: float = 1.0


class Block(Value):
    attention: Heads
    norms: tuple[Norm, ...] = (Norm(), Norm())


class Model(Value):
    width: int
    block: Block


@pytest.fixture
def model():
    return Model(width=8, block=Block(attention=Heads()))


def test_a_value_is_compared_hashed_and_frozen(model):
    assert model == Model(width=8, block=Block(attention=Heads()))
    assert hash(model) == hash(Model(width=8, block=Block(attention=Heads())))
    assert model != model.replace("width", 4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.width = 4
    with pytest.raises(TypeError, match="positional"):
        Heads(8)


def test_bound_fields_are_filled_in_at_any_depth(model):
    assert model.block.attention.width == 8
    assert [norm.width for norm in model.block.norms] == [8, 8]


def test_the_nearest_container_fills_in():
    class Middle(Value):
        width: int
        inner: Heads

    class Outer(Value):
        width: int
        middle: Middle

    assert Outer(width=8, middle=Middle(width=6, inner=Heads())).middle.inner.width == 6


def test_a_conflict_names_the_path():
    with pytest.raises(ConfigError, match=r"block\.attention: width=4, but the container around it has width=8"):
        Model(width=8, block=Block(attention=Heads(width=4)))


def test_an_agreeing_bound_value_is_no_conflict(model):
    assert Model(width=8, block=Block(attention=Heads(width=8))) == model


def test_check_waits_until_all_is_filled_in_and_names_the_path():
    heads = Heads(heads=3)
    with pytest.raises(ConfigError, match=r"^block\.attention\.heads: 3 heads do not divide width 8"):
        Model(width=8, block=Block(attention=heads))


@pytest.mark.parametrize(
    "use", [operator.neg, int, bool, list, len, lambda u: u + 1, lambda u: 4 // u, lambda u: u < 1]
)
def test_any_use_of_an_unbound_field_is_an_error(use):
    with pytest.raises(UnboundError, match=r"(?s)Heads: width \(residual width\).*write Heads\(width=\.\.\.\)"):
        use(Heads().width)


def test_released_unbinds_what_a_container_fills_in_and_nothing_else(model):
    assert isinstance(model.released().block.attention.width, Unbound)
    assert isinstance(model.released().block.norms[1].width, Unbound)
    assert Heads(width=4).released().width == 4
    assert dataclasses.replace(model.released()) == model


def test_replace_rebinds_and_leaves_the_old_value(model):
    wide = model.replace("width", 16)
    assert (wide.block.attention.width, model.block.attention.width) == (16, 8)
    assert model.replace("block.norms.1.scale", 0.5).block.norms == (Norm(width=8), Norm(width=8, scale=0.5))
    assert model.replace("block.attention", Heads(heads=4)).block.attention == Heads(width=8, heads=4)


def test_a_part_taken_out_of_its_container_keeps_its_widths(model):
    assert model.replace("block", model.block) == model
    with pytest.raises(ConfigError, match=r"block\.attention: width=8, but the container around it has width=16"):
        model.replace("width", 16).replace("block", model.block)


def test_a_container_may_share_another_width_than_its_own():
    class Pair(Value):
        width: int
        left: Heads

        def shares(self):
            return {"width": self.width // 2}

    assert Pair(width=8, left=Heads()).left.width == 4
    assert Pair(width=8, left=Heads()).replace("width", 12).left.width == 6


def test_replace_of_a_bound_field_is_refused(model):
    with pytest.raises(ConfigError, match="the container fills it in"):
        model.replace("block.attention.width", 4)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("block.atention", r"block: Block has no field 'atention'\nDid you mean 'attention'"),
        ("block.norms.2", r"block\.norms: there is no item '2' in a tuple of 2"),
        ("width.x", r"width: 8 is a leaf"),
    ],
)
def test_an_unknown_path_is_refused(model, path, message):
    with pytest.raises(ConfigError, match=message):
        model.get(path)
    with pytest.raises(ConfigError, match=message):
        model.replace(path, 1)


def test_walk_gives_every_value_with_its_path(model):
    paths = ["", "block", "block.attention", "block.norms.0", "block.norms.1"]
    assert [path for path, _ in model.walk()] == paths
    assert all(model.get(path) is value for path, value in model.walk() if path)


def test_swap_replaces_each_and_binds_anew(model):
    class Other(Value):
        width: int = bound("residual width")
        was: Norm

    swapped = model.swap(Norm, lambda norm: Other(was=norm))
    assert [type(n) for n in swapped.block.norms] == [Other, Other]
    assert swapped.block.norms[0] == Other(width=8, was=Norm(width=8))
    assert swapped.swap(Other, Norm()) == model


def test_swap_of_what_is_not_there_lists_what_is(model):
    with pytest.raises(ConfigError, match=r"no Model2 to swap\nIt holds: Block, Heads, Model, Norm\."):
        model.swap(type("Model2", (Value,), {"__annotations__": {}}), Norm())
