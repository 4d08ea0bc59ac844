"""Memory and FLOPs of a compiled step, and what to do when it does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from cupola.observe.account import Account, account
from cupola.observe.errors import ObserveError


@pytest.fixture(scope="module")
def compiled():
    return jax.jit(lambda w, x: (w - 0.1 * (x.T @ (x @ w)), jnp.float32(0)), donate_argnums=0).lower(
        jax.ShapeDtypeStruct((64, 32), jnp.float32), jax.ShapeDtypeStruct((128, 64), jnp.float32)
    ).compile()  # fmt: skip


def test_what_the_compiler_says(compiled):
    found = account(compiled, parameter_bytes=64 * 32 * 4, optimizer_bytes=0, flops=2 * 2 * 128 * 64 * 32)
    assert found.argument_bytes == (64 * 32 + 128 * 64) * 4
    assert found.temporary_bytes >= 128 * 32 * 4
    assert found.output_bytes < 64 * 32 * 4, "the donated parameters are written in place"
    assert found.peak_bytes == found.argument_bytes + found.temporary_bytes + found.output_bytes
    assert found.compiled_flops >= found.flops == 2 * 2 * 128 * 64 * 32
    rows = dict(found.rows())
    assert rows["parameters"] == "8.19 kB"
    assert rows["model FLOPs"] == "1.05M"
    assert found.text().count("\n") == len(rows) - 1


class Silent:
    def memory_analysis(self):
        return None

    def cost_analysis(self):
        return None


def test_a_backend_that_says_nothing_is_reported_as_such():
    found = account(Silent(), parameter_bytes=1000, optimizer_bytes=2000)
    assert found.peak_bytes is None
    assert found.text().count("unknown: the backend does not say") == 6
    assert not found.needs_more_than(1)
    found.check_fits(1)


FIT = Account(parameter_bytes=100, optimizer_bytes=200, peak_bytes=1000)


def test_a_step_that_fits_passes():
    assert not FIT.needs_more_than(1000)
    FIT.check_fits(1000)
    assert FIT.needs_more_than(999)


@pytest.mark.parametrize(
    ("change", "available", "message"),
    [
        ({}, 650, r"needs 1\.00 kB, but 650 B are available\n.*at most 50% of this one"),
        ({}, 300, r"alone take 300 B: .*mesh\.fsdp"),
        ({"peak_bytes": 300}, 250, "smaller model"),
    ],
)
def test_a_step_that_does_not_fit_says_what_would(change, available, message):
    with pytest.raises(ObserveError, match=message):
        dataclasses.replace(FIT, **change).check_fits(available)
