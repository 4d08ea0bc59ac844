"""Mel filters: of the area or peak that is asked, evenly spaced, none empty."""

import numpy as np
import pytest

from cupola.core.errors import ConfigError
from cupola.data.audio.mel import MelFilters, Norm, Scale


@pytest.mark.parametrize("scale", Scale)
def test_scales_are_inverted_and_known_where_they_are_defined(scale):
    hz = np.linspace(0.0, 12_000, 500)
    np.testing.assert_allclose(scale.hz(scale.mel(hz)), hz, atol=1e-9)
    known = {Scale.SLANEY: (1000.0, 15.0), Scale.HTK: (700.0, 2595 * np.log10(2))}[scale]
    assert scale.mel(np.asarray([known[0]]))[0] == pytest.approx(known[1], rel=1e-12)


@pytest.mark.parametrize("scale", Scale)
@pytest.mark.parametrize("norm", Norm)
def test_triangles(scale, norm):
    filters = MelFilters(bins=20, low_hz=100.0, high_hz=7000.0, scale=scale, norm=norm)
    matrix = filters.matrix(rate_hz=16_000, size=65_536)
    step_hz = 16_000 / 65_536
    if norm is Norm.AREA:
        np.testing.assert_allclose(matrix.sum(axis=1) * step_hz, 1, rtol=1e-4)
    else:
        np.testing.assert_allclose(matrix.max(axis=1), 1, atol=step_hz / 20)
        # Each falls as the next one rises.
        inside = slice(matrix[0].argmax() + 1, matrix[-1].argmax())
        np.testing.assert_allclose(matrix.sum(axis=0)[inside], 1, rtol=1e-9)
    peaks = scale.mel(matrix.argmax(axis=1) * step_hz)
    np.testing.assert_allclose(np.diff(peaks), np.diff(peaks).mean(), rtol=0.02)


def test_a_bin_that_falls_between_frequencies_is_refused():
    with pytest.raises(ConfigError, match=r"bin \d+ of 200.*between"):
        MelFilters(bins=200).matrix(rate_hz=16_000, size=400)


def test_a_rate_that_does_not_reach_is_refused():
    with pytest.raises(ConfigError, match=r"reach 4000 Hz, not 8000") as caught:
        MelFilters().matrix(rate_hz=8_000, size=400)
    assert "high_hz=4000" in caught.value.remedy


@pytest.mark.parametrize("fields", [{"bins": 0}, {"low_hz": 8000.0}, {"low_hz": -1.0}], ids=str)
def test_bins_that_cannot_be_are_refused(fields):
    with pytest.raises(ConfigError):
        MelFilters(**fields)
