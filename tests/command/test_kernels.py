import json

import pytest

from cupola.kernels import measured, tune
from cupola.kernels.native import build, library
from cupola.kernels.operations import OPERATIONS


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A cache folder of this test alone."""
    monkeypatch.setattr(build, "own_folder", lambda: tmp_path / "own")
    monkeypatch.setattr(library, "own_folder", lambda: tmp_path / "own")
    monkeypatch.setattr(measured, "own_folder", lambda: tmp_path / "own")
    measured.forget()
    library.find.cache_clear()
    yield tmp_path / "own"
    measured.forget()
    library.find.cache_clear()


def test_every_operation_is_listed_in_short_lines(cupola):
    ended = cupola("kernels", "list")
    assert ended.code == 0
    _, *lines, last = ended.out.splitlines()
    assert len(set(lines)) == len(lines)
    assert {line.split()[0] for line in lines} == set(OPERATIONS)
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "Tracer" not in ended.out
    assert "explain" in last


def test_levels_that_are_refused_for_the_same_reason_are_one_entry(cupola, own, monkeypatch):
    monkeypatch.setattr(library, "INSTALLED", own)
    ended = cupola("kernels", "explain", "dot", "M=2", "K=8", "F=8")
    assert (
        ended.out.count("\n    cpu                  the native library was not built.")
        == ended.out.count("\ndot M") + 1
    )
    assert "cpu/" not in ended.out
    assert "Tracer" not in ended.out


def test_a_choice_is_explained(cupola, own):
    ended = cupola("kernels", "explain", "rms_norm", "N=32", "dtype=bfloat16")
    assert ended.code == 0
    assert "rms_norm N=32 D=576: bfloat16 float32" in ended.out
    assert "xla" in ended.out
    assert "reference" in ended.out
    seconds = {each.name: 2e-3 for each in OPERATIONS["rms_norm"].implementations} | {"xla": 1e-3}
    rows = [measured.Row("rms_norm", "cpu", measured.Call("bfloat16 float32", ((8, 8), (8,))), seconds)]
    measured.write(own / measured.FILE, "a quiet machine", rows)
    measured.forget()
    ended = cupola("kernels", "explain", "rms_norm", "N=32", "dtype=bfloat16")
    assert "* xla                  1 ms" in ended.out
    assert "measured at 8x8 8 on a quiet machine" in ended.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rms_nrm"], "Did you mean 'rms_norm'"),
        (["rms_norm", "Q=3"], "It has N=1, D=576"),
        (["rms_norm", "N=x"], "Type SIZE=NUMBER, or dtype=float32 or dtype=bfloat16"),
        (["rms_norm", "dtype=int8"], "is no size"),
    ],
)
def test_what_cannot_be_explained_is_refused(cupola, words, told):
    ended = cupola("kernels", "explain", *words)
    assert (ended.code, told in ended.err) == (2, True)


def test_a_build_without_a_compiler_says_what_to_type(cupola, own):
    ended = cupola("kernels", "build", "--compiler", "no-such-compiler")
    assert (ended.code, "apt install g++" in ended.err) == (2, True)


def test_what_was_tuned_is_kept_and_used(cupola, own, monkeypatch):
    row = measured.Row(
        "gate", "cpu", measured.Call("float32 float32 @float32", ((1, 2), (1, 2))), {"xla": 2e-3, "b": 1e-3}
    )
    monkeypatch.setattr(tune, "rows", lambda example, seconds: [row])
    ended = cupola("kernels", "tune", "gate", "--seconds", "0.001")
    assert ended.code == 0
    assert "gate 1x2 1x2 float32 float32 @float32: b 1 ms" in ended.out
    assert f"kept in {own / measured.FILE}" in ended.out
    assert [r.call for r in measured.own()] == [row.call]
    later = row.__class__(**{**vars(row), "operation": "rotate"})
    monkeypatch.setattr(tune, "rows", lambda example, seconds: [later])
    cupola("kernels", "tune", "rotate")
    assert [r["operation"] for r in json.loads((own / measured.FILE).read_text())["rows"]] == ["gate", "rotate"]
    assert cupola("kernels", "tune", "gat").code == 2


def test_where_there_is_nothing_to_choose_it_says_so(cupola, own, monkeypatch):
    monkeypatch.setattr(tune, "rows", lambda example, seconds: [])
    ended = cupola("kernels", "tune", "gate")
    assert "nothing to measure" in ended.out
    assert not own.exists()
