from pathlib import Path

from cupola.command.doctor import about_kernels
from cupola.kernels import measured
from cupola.kernels.measured import Call, Row
from cupola.kernels.native.level import Level
from cupola.kernels.native.library import Found


def test_it_tells_what_there_is_and_what_it_means(cupola, measured):
    ended = cupola("doctor")
    assert ended.code == 0
    for what, value in measured.describe():
        assert what in ended.out
        assert value in ended.out
    assert "models train here with bfloat16 products, layers unrolled" in ended.out


def test_native_kernels_are_told_with_what_is_untested():
    found = Found({Level.AVX2: Path("lib/a.so"), Level.AVX512: Path("lib/b.so")}, Level.AVX512)
    assert about_kernels(found) == [
        "native kernels: this processor has avx512; found are avx2, avx512, in lib",
        "native kernels: compiled, and untested on this processor: avx512_bf16, amx",
    ]
    assert len(about_kernels(Found(dict.fromkeys(Level, Path("lib/a.so")), Level.AMX))) == 1


def test_what_it_costs_to_have_none_is_told(monkeypatch):
    seconds = {"cpu/amx": 1.0, "cpu/avx2": 3.0, "xla": 4.0}, {"cpu/amx": 1.0, "xla": 1.0}, {"cpu/amx": 2.0, "xla": 1.0}
    names = "dot", "dot", "gate"
    rows = [Row(name, "cpu", Call("float32", ((1,),)), each) for name, each in zip(names, seconds, strict=True)]
    monkeypatch.setattr(measured, "committed", lambda: tuple(rows))
    assert about_kernels(Found({}, None, "there is none")) == [
        "native kernels: none: there is none",
        "what that costs, times longer where it was measured: dot 2.0",
    ]
    monkeypatch.setattr(measured, "committed", lambda: ())
    assert len(about_kernels(Found({}, None, "there is none"))) == 1
