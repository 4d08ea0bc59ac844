"""The machine is measured once, and what is measured is plausible."""

import dataclasses
import os

import jax
import pytest

from cupola.observe import machine


@pytest.fixture(scope="module")
def measured():
    return machine.measure()


def test_measured_once(measured):
    assert machine.measure() is measured


def test_what_it_has(measured):
    assert 1 <= measured.cores <= os.cpu_count()
    assert 2**28 < measured.memory_bytes < 2**50
    assert measured.devices == (("cpu", 8),)
    assert measured.device_memory_bytes is None
    assert measured.versions["jax"] == jax.__version__
    assert measured.processor


def test_rates_are_plausible(measured):
    assert set(measured.matmul_flops_per_second) == {"float32", "bfloat16"}
    assert all(1e8 < rate < 1e16 for rate in measured.matmul_flops_per_second.values())
    assert 1e8 < measured.memory_bytes_per_second < 1e14


def test_share_is_of_the_best_rate_or_of_the_one_named(measured):
    known = dataclasses.replace(measured, matmul_flops_per_second={"float32": 1e11, "bfloat16": 4e11})
    assert known.share(2e11) == 0.5
    assert known.share(5e10, "float32") == 0.5


def test_described_with_units(measured):
    rows = dict(measured.describe())
    assert rows["devices"] == "8 x cpu"
    assert rows["bfloat16 matmul"].endswith("FLOP/s")
    assert rows["bandwidth"].endswith("B/s")
    assert rows["memory"].endswith("B")
    assert "device memory" not in rows
    with_own = dataclasses.replace(measured, device_memory_bytes=80 * 10**9)
    assert dict(with_own.describe())["device memory"] == "80.0 GB"
