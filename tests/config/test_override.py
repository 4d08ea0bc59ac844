import enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cupola.config.errors import ConfigError
from cupola.config.override import override
from cupola.config.value import Value, bound
from cupola.core.dtype import Precision

HERE = __name__


class Gate(enum.Enum):
    SILU = 1
    GELU = 2


class Attention(Value):
    width: int = bound("residual width")
    heads: int = 2
    gate: Gate = Gate.SILU
    window: int | None = None

    def check(self):
        if self.width % self.heads:
            raise ConfigError(f"{self.heads} heads do not divide width {self.width}", where="heads")


class Optimizer(Value):
    rate: float = 0.1


class Muon(Optimizer):
    gate: Gate = Gate.SILU
    betas: tuple[float, ...] = (0.9,)


class Run(Value):
    width: int = 8
    blocks: tuple[Attention, ...] = (Attention(), Attention())
    optimizer: Optimizer = Optimizer()
    precision: Precision = Precision()
    name: str = "small"
    folder: Path = Path("runs")
    note: Any = None
    ratio: tuple[tuple[str, float], ...] | None = None

    def check(self):
        if self.width > 64:
            raise ConfigError("width is over 64", where="width")


@pytest.mark.parametrize(
    ("edit", "path", "expected"),
    [
        ("width=16", "blocks.1.width", 16),
        (" width = 16 ", "width", 16),
        ("optimizer.rate=3e-4", "optimizer.rate", 3e-4),
        ("optimizer.rate=1", "optimizer.rate", 1.0),
        ("blocks.1.gate=GELU", "blocks.1.gate", Gate.GELU),
        (f"blocks.1.gate={HERE}:Gate.GELU", "blocks.1.gate", Gate.GELU),
        ("blocks.0.window=5", "blocks.0.window", 5),
        ("precision.compute=bfloat16", "precision.compute", np.dtype("bfloat16")),
        ("name=run-1 of 2", "name", "run-1 of 2"),
        ("name=512", "name", "512"),
        ("name=(draft) at 10:30", "name", "(draft) at 10:30"),
        ("name='None'", "name", "None"),
        ("name=", "name", ""),
        ("name=a=b", "name", "a=b"),
        ("folder=/tmp/a b", "folder", Path("/tmp/a b")),
        ("note=(1, 'a')", "note", (1, "a")),
        ("ratio=((code, 0.5), (text, 1))", "ratio", (("code", 0.5), ("text", 1.0))),
        (f"optimizer={HERE}:Muon", "optimizer", Muon()),
        (f"optimizer={HERE}:Muon(rate=0.02, gate=GELU)", "optimizer", Muon(rate=0.02, gate=Gate.GELU)),
        (f"blocks=({HERE}:Attention(heads=4),)", "blocks", (Attention(width=8, heads=4),)),
    ],
)
def test_the_right_side_is_read_by_the_type_of_the_field(edit, path, expected):
    changed = override(Run(), [edit]).get(path)
    assert changed == expected
    assert type(changed) is type(expected)


def test_no_edit_changes_nothing():
    assert override(Run(), []) == Run()


def test_later_edits_see_what_earlier_ones_put_there():
    changed = override(Run(), ["optimizer.rate=5", f"optimizer={HERE}:Muon(rate=0.02)", "optimizer.betas=(0.5, 1)"])
    assert changed.optimizer == Muon(rate=0.02, betas=(0.5, 1.0))
    assert override(Run(), ["width=16", "width=32"]).width == 32


def test_fields_that_must_agree_are_changed_together():
    assert override(Run(), ["blocks.0.heads=3", "blocks.1.heads=3", "width=9"]).blocks[0].width == 9
    with pytest.raises(ConfigError, match=r"^blocks\.0\.heads: 3 heads do not divide width 8"):
        override(Run(), ["blocks.0.heads=3"])
    with pytest.raises(ConfigError, match="^width: width is over 64"):
        override(Run(), ["width=128"])


def test_a_bound_field_of_a_value_alone_may_be_given():
    assert override(Attention(), ["width=4"]) == Attention(width=4)
    assert override(Attention(width=4), ["width=6"]) == Attention(width=6)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("widht=16", "Run has no field 'widht'\nDid you mean 'width'"),
        ("blocks.0.haeds=1", r"^blocks\.0: Attention has no field 'haeds'\nDid you mean 'heads'"),
        ("blocks.7.heads=1", "no item '7' in a tuple of 2"),
        ("width.x=1", "8 is a leaf"),
        ("width=wide", "^width: expects int, but got the bare word 'wide'\nWrite, for example, 8"),
        ("width=1e3", "^width: expects int.*\nWrite 1000"),
        ("name='a", "^name: .*cannot be read"),
        ("width=", "^width: '' cannot be read"),
        ("blocks.0.gate=silu", r"^blocks\.0\.gate: 'silu' is no Gate\nDid you mean 'SILU'"),
        ("precision.compute=float31", r"^precision\.compute: 'float31' is no dtype(?s:.*)Did you mean 'float32'"),
        ("precision.compute=int8", r"^precision\.compute: int8 cannot hold activations"),
        (
            "blocks.0.width=16",
            r"^blocks\.0\.width: width is filled in by the container, from width=8\nSet width=\.\.\. instead",
        ),
        ("optimizer=Muon", rf"^optimizer: expects Optimizer, but got the bare word 'Muon'\nWrite {HERE}:Muon\."),
        ("optimizer=3", rf"^optimizer: expects Optimizer, but got 3(?s:.*)Write, for example, {HERE}:Muon\."),
        ("optimizer=Muon(rate=1)", rf"^optimizer: 'Muon' is no kind of leaf\nWrite {HERE}:Muon\(\.\.\.\)"),
        (f"optimizer={HERE}:Moun", "Did you mean 'Muon'"),
        (f"optimizer={HERE}:Muon(rat=1)", r"^optimizer\.rat: Muon has no field 'rat'\nDid you mean 'rate'"),
        (f"optimizer={HERE}:Attention", "^optimizer: expects Optimizer, but got Attention"),
        ("note=hello", "could mean anything here(?s:.*)quotes"),
        ("ratio=((code, x),)", r"^ratio"),
        ("width", "'width' changes nothing\nWrite path=value"),
        ("=3", "Write path=value"),
        ("note=others_code:run", "^note: module 'others_code' is not imported"),
    ],
)
def test_a_bad_edit_is_refused_with_what_to_type(edit, message):
    with pytest.raises(ConfigError, match=message):
        override(Run(), [edit])


class Corpus(Value):
    path: str | None = None
    share: float = 0.1

    shorthand = "path"


class Training(Value):
    data: Corpus = Corpus(share=0.3)
    second: Corpus | None = None


@pytest.mark.parametrize(
    ("edits", "data"),
    [
        (["data=speech/a b"], Corpus(path="speech/a b", share=0.3)),
        (["data=12"], Corpus(path="12", share=0.3)),
        (["data.share=0.5", "data=speech"], Corpus(path="speech", share=0.5)),
        (["data=speech", "data.share=0.5"], Corpus(path="speech", share=0.5)),
        ([f"data={HERE}:Corpus(path='b')"], Corpus(path="b")),
        (["data.path=None"], Corpus(share=0.3)),
    ],
)
def test_text_in_place_of_a_value_is_given_to_the_field_that_it_stands_for(edits, data):
    assert override(Training(), edits).data == data


@pytest.mark.parametrize(
    ("made", "edit"),
    [
        (Training(), f"data={HERE}:Muon()"),  # another value, which does not fit
        (Training(), "data=None"),
        (Training(), "second=speech"),  # no value stands there whose field it could be
        (Run(), "optimizer=speech"),  # a value that has no shorthand
    ],
)
def test_what_is_no_such_text_is_refused_as_before(made, edit):
    with pytest.raises(ConfigError, match=edit.split("=")[0]):
        override(made, [edit])
