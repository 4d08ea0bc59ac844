import enum
import pathlib
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupola.config.errors import ConfigError
from cupola.config.text import lines, parse, show
from cupola.config.value import Unbound, Value, bound
from cupola.core.dtype import BFLOAT16
from cupola.core.errors import MeshError
from cupola.core.mesh import MeshShape
from cupola.core.param import Param
from cupola.core.partition import Rules

HERE = __name__


class Gate(enum.Enum):
    SILU = 1
    GELU = 2


class Rope(Value):
    base: float = 10_000.0


class Attention(Value):
    width: int = bound("residual width")
    heads: int = 2
    rope: Rope | None = Rope()
    gate: Gate = Gate.SILU

    def check(self):
        if self.width % self.heads:
            raise ConfigError(f"{self.heads} heads do not divide width {self.width}", where="heads")


class Decoder(Value):
    width: int
    blocks: tuple[Attention, ...] = (Attention(), Attention(heads=4))
    name: str = "small"


class Anything(Value):
    held: Any = None


DECODER = f"""\
. = {HERE}:Decoder
width = 8
blocks.0 = {HERE}:Attention
blocks.0.heads = 2
blocks.0.rope = {HERE}:Rope
blocks.0.rope.base = 10000.0
blocks.0.gate = {HERE}:Gate.SILU
blocks.1 = {HERE}:Attention
blocks.1.heads = 4
blocks.1.rope = None
blocks.1.gate = {HERE}:Gate.SILU
name = 'small'"""


@pytest.fixture
def decoder():
    return Decoder(width=8, blocks=(Attention(), Attention(heads=4, rope=None)))


def test_one_leaf_per_line_without_what_the_container_fills_in(decoder):
    assert show(decoder) == DECODER
    assert lines(decoder)["blocks.0.heads"] == "2"


def test_the_text_rebuilds_an_equal_value(decoder):
    rebuilt = parse(show(decoder))
    assert rebuilt == decoder
    assert rebuilt.blocks[1].width == 8
    assert show(rebuilt) == show(decoder)


def test_what_is_given_outright_is_printed_and_what_is_unbound_is_not():
    assert "width = 4" in show(Attention(width=4))
    assert "width" not in show(Attention())
    assert isinstance(parse(show(Attention())).width, Unbound)
    assert parse(show(Attention(width=4))) == Attention(width=4)


def test_a_tuple_of_values_and_a_leaf_alone():
    pair = (MeshShape(data=2), Rope())
    assert show(pair).startswith("0 = cupola.core.mesh:MeshShape\n0.data = 2\n")
    assert parse(show(pair)) == pair
    assert parse(show((1, 2))) == (1, 2)
    assert show(()) == ". = ()"


def test_an_int_in_a_float_field_prints_as_the_float_that_it_equals():
    assert Rope(base=1) == Rope(base=1.0)
    assert show(Rope(base=1)) == show(Rope(base=1.0)) == f". = {HERE}:Rope\nbase = 1.0"


def test_comments_and_empty_lines_are_left_out(decoder):
    assert parse("# the small one\n\n" + DECODER.replace("\nname", "\n  # named\n  name")) == decoder


def test_a_missing_line_takes_the_default():
    assert parse(f". = {HERE}:Decoder\nwidth = 4") == Decoder(width=4)


def test_number_formats_and_what_is_no_value():
    assert "compute = dtype('bfloat16')" in show(BFLOAT16)
    assert parse(show(BFLOAT16)) == BFLOAT16
    param = Anything(held=Param((2, 3), "D F", dtype=jnp.float32))
    assert parse(show(param)) == param


def test_values_inside_a_set_or_a_nested_tuple():
    value = Anything(held=(frozenset({Rope(), Rope(base=2.0)}), ((Rope(), 1), "a")))
    assert "held.1.0.0.base = 10000.0" in show(value)
    assert parse(show(value)) == value


constants = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.sampled_from([Gate.SILU, len, Rope, MeshShape, jnp.tanh, np.dtype("bfloat16"), np.dtype("int8")]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).map(pathlib.PurePosixPath),
    st.builds(Rope, base=st.floats(allow_nan=False)),
    st.sampled_from([Param((2, 3), "D F"), Param((2,), "D", dtype=np.dtype("int8"))]),
)
leaves = st.recursive(
    constants, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3), max_leaves=5
)
values = st.recursive(
    st.builds(Anything, held=leaves),
    lambda inner: st.builds(Anything, held=inner | st.lists(inner | leaves, max_size=3).map(tuple)),
    max_leaves=6,
)


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # beartype samples what is in a tuple
@settings(max_examples=150, deadline=None)
@given(values)
def test_every_value_that_a_recipe_can_hold_rebuilds_equal(value):
    text = show(value)
    assert parse(text) == value
    assert show(parse(text)) == text
    assert all(" = " in line for line in text.split("\n"))


def test_the_text_rebuilds_in_a_fresh_process():
    value = (Rules(), MeshShape(tensor=2), BFLOAT16)
    code = "import sys; from cupola.config.text import parse, show; sys.stdout.write(show(parse(sys.stdin.read())))"
    done = subprocess.run([sys.executable, "-c", code], input=show(value), capture_output=True, text=True, check=True)
    assert done.stdout == show(value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name = ", "nmae = ", r"^line 12, nmae: Decoder has no field 'nmae'\nDid you mean 'name'"),
        (":Decoder", ":Decodr", "^line 1, .: .* has no 'Decodr'\nDid you mean 'Decoder'"),
        ("width = 8", "width = '8'", r"^line 2, width: expects int, but got '8'"),
        ("width = 8", "width = 8 9", "^line 2, width: '8 9' cannot be read"),
        ("width = 8\n", "", "^line 1, .: Decoder needs width\nAdd width = "),
        ("0.heads = 2", "0.heads = 3", r"^line 4, blocks\.0\.heads: 3 heads do not divide width 8"),
        (f"0.rope = {HERE}:Rope\n", "0.rope = 3\n", r"^line 5, blocks\.0\.rope: 3 is a leaf, but line 6 gives it"),
        (
            f"blocks.0 = {HERE}:Attention\n",
            "",
            r"^line 3, blocks\.0: no line says(?s:.*)Add the line blocks\.0 = module",
        ),
        ("blocks.1", "blocks.2", r"^line 3, blocks: no line says of which class"),
        ("Gate.SILU", "Gate.SILO", r"^line 7, blocks\.0\.gate: .*\nDid you mean 'Gate\.SILU'"),
        (
            f"rope = {HERE}:Rope\n",
            f"rope = {HERE}:Attention\n",
            r"^line 6, blocks\.0\.rope\.base: Attention has no field",
        ),
        (
            f"{HERE}:Attention\nblocks.1.heads",
            "cupola.core.mesh:MeshShape\nblocks.1.heads",
            "line 9, .*no field 'heads'",
        ),
        ("name = 'small'", "name", "^line 12: 'name' is no leaf\nWrite path = value"),
        ("name = 'small'", "name = os_of_others:x", r"^line 12, name: module 'os_of_others' is not imported"),
        ("name = ", "width = 3\nname = ", "^line 12: width stands on line 2 already"),
    ],
)
def test_a_bad_line_is_named_with_what_to_type(old, new, message):
    assert old in DECODER
    with pytest.raises(ConfigError, match=message):
        parse(DECODER.replace(old, new, 1) if old != "blocks.1" else DECODER.replace(old, new))


def test_an_item_of_the_wrong_class_is_named_by_its_own_line():
    text = f". = {HERE}:Decoder\nwidth = 8\nblocks.0 = {HERE}:Attention\nblocks.1 = {HERE}:Rope"
    with pytest.raises(ConfigError, match=r"^line 4, blocks\.1: expects Attention, but got Rope"):
        parse(text)


def test_the_values_own_mistakes_keep_their_kind():
    with pytest.raises(MeshError, match="^line 3, tensor: axis has size 0"):
        parse(". = cupola.core.mesh:MeshShape\ndata = 1\ntensor = 0")


@pytest.mark.parametrize("text", ["", "# nothing"])
def test_an_empty_text_is_refused(text):
    with pytest.raises(ConfigError, match="there is nothing to read"):
        parse(text)


def test_a_bare_word_without_a_type_is_refused():
    with pytest.raises(ConfigError, match="could mean anything"):
        parse(". = hello")
    assert parse(f". = {HERE}:Attention\ngate = GELU").gate is Gate.GELU


def test_what_has_no_text_is_refused_by_its_path():
    with pytest.raises(ConfigError, match=r"^held\.1\.held: \[1\] \(list\) has no text"):
        show(Anything(held=(Rope(), Anything(held=[1]))))
    with pytest.raises(ConfigError, match=r"^blocks\.0\.heads: expects int, but got 'two'"):
        show(Decoder(width=8, blocks=(Unchecked(heads="two"),)))


class Unchecked(Attention):
    def check(self):
        pass
