"""Native code that is broken in the obvious ways fails the matrix; a copy that is not broken passes."""

import ctypes
import platform
import shutil
from functools import cache, partial

import jax
import jax.numpy as jnp
import paged_cases
import pytest
from cases import CASES
from judge import POLICIES, complaints, results_of

from cupola.kernels.native import build, library
from cupola.kernels.native.level import Level
from cupola.kernels.paged.api import PAGED_ATTEND

MUTANTS = {
    "attend: a key does not see itself": ("attention/sight.h", "(at[t] >= low)", "(at[t] > low)", "past two blocks"),
    "attend: no mask past the last key": (
        "attention/sight.h", "if (here >= sight.keys) {", "if (here > sight.keys) {", "everything seen",
    ),
    "attend: no maximum is taken off": (
        "attention/forward.h", "top[j] = larger(before, top[j]);", "top[j] = before;", "past two blocks",
    ),
    "attend: what was gathered is not rescaled": (
        "attention/forward.h", "store(each, load(each) * shrink[j]);", "store(each, load(each));", "past two blocks",
    ),
    "rms_norm: no epsilon": (
        "norm/cpu.cc", "sum / float(width) + epsilon", "sum / float(width)", "tiny rows, which epsilon governs",
    ),
    "rms_norm: no last numbers of a row": (
        "norm/cpu.cc", "i = whole; i < width;", "i = whole; i < whole;", "odd sizes and heads",
    ),
    "gate: a slope that is the value's": ("gated/cpu.cc", "multiply_add(value, all(1) - share, share)", "share", "typical"),
    "rotate: another sign": ("rotary/cpu.cc", "a * c - b * s", "a * c + b * s", "typical"),
    "linear_cross_entropy: a sum is not rescaled": (
        "cross_entropy/cpu.cc", "total * exponential(top - most)", "total", "blocks of a vocabulary",
    ),
    "linear_cross_entropy: the next target": (
        "cross_entropy/cpu.cc", "slope.where[column + j] - row;", "slope.where[column + j] - row + 1;", "typical",
    ),
    "dot_experts: the first matrix for all": ("matmul/cpu.cc", "weights(task, e * blocks + b,", "weights(task, b,", "packed, odd sizes"),
    "dot: bf16 where float32 was asked": ("matmul/cpu.cc", "rounded ? widen(narrow(wide)) : wide", "widen(narrow(wide))", "packed, odd sizes"),
    "dot: the first group's sum for all": (
        "matmul/groups.h", "same(-task.rows.of[r * groups + g].excess)", "same(-task.rows.of[r * groups].excess)",
        "packed groups of 4 bits",
    ),
    "dot: codes without their offset": (
        "matmul/unpack.h", "return add_product(code, scale[part], offset[part]);", "return product(code, scale[part]);",
        "codes of 4 bits beside activations",
    ),
    "dot: the first group's scale for all, of tiles": (
        "matmul/unpack.h", "group(task, g * kColumns);", "group(task, 0);", "codes of 8 bits beside activations, one row",
    ),
    "look_up: one place is left out": ("embedding/cpu.cc", "each = 1; each < count", "each = 2; each < count", "the same token everywhere"),
    "paged_attend: the window is one more": ("paged/cpu.cc", "own - p.window + 1 - first", "own - p.window - first", "typical"),
    "paged_attend: the next key is seen": ("paged/cpu.cc", "std::min(own + 1, last)", "std::min(own + 2, last)", "odd sizes"),
    "paged_attend: a block begins where its page does": (
        "paged/problem.h", "body(page, inside, count, at - first);", "body(page, 0, count, at - first);",
        "one key head, wide, pages longer than a block",
    ),
    "paged_attend: the first key head for all": (
        "paged/wide.h", "key_pool + (page * p.groups + group) * held", "key_pool + page * p.groups * held", "typical",
    ),
    "paged_attend: what was gathered is not rescaled": (
        "paged/wide.h", "multiply_add(load(to), spread(shrink[r]), sum[r][v])", "load(to) + sum[r][v]", "many queries",
    ),
    "paged_attend: the end of a head is left out": ("paged/wide.h", "c < p.width; c += kChain", "c < 0; c += kChain", "typical"),
    "paged_attend: tiles of two parts": ("paged/cpu.cc", "sizeof(bfloat16) ? 1 : 3>", "sizeof(bfloat16) ? 1 : 2>", "typical"),
    "paged_attend: tiles that are not rescaled": (
        "paged/tiles.h", "multiply_add(load(line + c), spread(shrink[r]), load(mixed + r * padded + c))",
        "load(line + c) + load(mixed + r * padded + c)", "many queries",
    ),
    "paged_attend: registers of the first row alone": (
        "paged/tiles.h", "rows + r * kTileDepth, sizeof both", "rows, sizeof both", "many queries",
    ),
    "lstm: nothing is forgotten of the gradient": (
        "lstm/cpu.cc", "store(carried, by_cell * forget, few);", "store(carried, by_cell, few);", "odd sizes",
    ),
}  # fmt: skip
"""By operation and what is wrong: file, what stands there, what is put there, and a case that shows it."""
LEVELS = list(library.find().libraries)


def level_of(mutant):
    """Returns the level at which a mutant is compiled: the first, which takes the least, unless it is of a higher one."""
    for code, level in (("tiles", Level.AMX), ("registers", Level.AVX512_BF16)):
        if code in mutant:
            if level not in LEVELS:
                pytest.skip(f"needs a processor with {level.value}")
            return level
    return LEVELS[0]


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Compiles one operation's code as it is changed, and returns what the judge says of it in the cases of mutants."""
    if not LEVELS or platform.machine() != "x86_64" or not any(map(shutil.which, build.COMPILERS)):
        pytest.skip("needs a C++ compiler and an x86-64")
    copy = tmp_path / "kernels"
    # Whoever looks while the code is another would find that the installed library was not made from it, and keep that.
    found = library.find()
    monkeypatch.setattr(library, "find", lambda: found)
    shutil.copytree(build.OPERATIONS, copy, ignore=shutil.ignore_patterns("*.py", "*.json", "*.so", "__pycache__"))

    def judge(file, change, mutants):
        path, level = copy / file, level_of(mutants[0])
        path.write_text(change(path.read_text()))
        monkeypatch.setattr(build, "OPERATIONS", copy)
        monkeypatch.setattr(build, "sources", lambda: [path.parent / "cpu.cc"])
        build.build(tmp_path / "lib", [level], ["-O1"])
        made = ctypes.CDLL(str(tmp_path / "lib" / build.name_of(level)))

        @cache
        def target(kernel, _):
            # Of a name that no other library has: what is known to XLA stays known.
            name = f"{tmp_path.name}_{kernel}"
            capsule = jax.ffi.pycapsule(getattr(made, f"cupola_{kernel}"))
            jax.ffi.register_ffi_target(name, capsule, platform="cpu")
            return name

        monkeypatch.setattr(library, "_target", target)
        jax.clear_caches()
        return [found for mutant in mutants for found in complaints_of(mutant, level)]

    yield judge
    jax.clear_caches()


def complaints_of(mutant, level):
    operation, name = mutant.partition(":")[0], MUTANTS[mutant][3]
    if operation == PAGED_ATTEND.name:
        native = partial(PAGED_ATTEND, f"cpu/{level.value}")
        return [found for asked in (jnp.float32, jnp.bfloat16) for found in paged_cases.complaints(name, asked, native)]
    (case,) = [case for case in CASES if (case.operation.name, case.name) == (operation, name)]
    (native,) = [i for i in case.operation.implementations if i.name == f"cpu/{level.value}"]
    names = tuple(n for n, p in POLICIES.items() if not native.refuses(*case.arguments(case.given()[n], p)))
    assert names
    return complaints(case, results_of.__wrapped__(case, native.function, names))


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_broken_code_is_caught(mutant, judged):
    file, there, instead, _ = MUTANTS[mutant]

    def broken(text):
        assert text.count(there) == 1
        return text.replace(there, instead)

    assert judged(file, broken, [mutant])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "of_tiles"), sorted({(file.split("/")[0], "tiles" in mutant) for mutant, (file, *_) in MUTANTS.items()})
)
def test_code_that_is_not_broken_passes(folder, of_tiles, judged):
    alike = [m for m, (file, *_) in MUTANTS.items() if file.startswith(f"{folder}/") and ("tiles" in m) is of_tiles]
    assert judged(f"{folder}/cpu.cc", lambda text: text, alike) == []
