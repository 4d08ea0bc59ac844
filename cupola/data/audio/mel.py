"""Mel filterbanks: triangles that are evenly spaced on a scale of pitch.

Invariant: equal to librosa's `filters.mel` of the same scale and norm, to float64.
Source: Slaney, Auditory Toolbox, 1998; Young et al., The HTK Book.
"""

import enum

import numpy as np
from jaxtyping import Float

from cupola.config.value import Value
from cupola.core.errors import ConfigError

_LINEAR_HZ = 200 / 3
_BREAK_HZ = 1000.0
_BREAK = _BREAK_HZ / _LINEAR_HZ
_LOG_STEP = np.log(6.4) / 27


class Scale(enum.Enum):
    """Which pitch belongs to a frequency."""

    SLANEY = "slaney"
    """Linear up to 1 kHz, logarithmic above: librosa's default."""
    HTK = "htk"
    """2595 log10(1 + f / 700): TensorFlow's, Kaldi's and torchaudio's default."""

    def mel(self, hz: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Returns the pitch of each frequency."""
        if self is Scale.HTK:
            return 2595 * np.log10(1 + hz / 700)
        above = _BREAK + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
        return np.where(hz < _BREAK_HZ, hz / _LINEAR_HZ, above)

    def hz(self, mel: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Returns the frequency of each pitch."""
        if self is Scale.HTK:
            return 700 * (10 ** (mel / 2595) - 1)
        return np.where(mel < _BREAK, mel * _LINEAR_HZ, _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK)))


class Norm(enum.Enum):
    """How high each triangle is."""

    AREA = "area"
    """Its area is 1 (in Hz), so that white noise gives every bin the same: Slaney's."""
    PEAK = "peak"
    """Its peak is 1: HTK's."""


class MelFilters(Value):
    """Triangles over the frequencies of a transform.

    Args:
        bins: how many.
        low_hz: where the first begins.
        high_hz: where the last ends.
        scale: on which they are evenly spaced.
        norm: how high they are.
    """

    bins: int = 80
    low_hz: float = 0.0
    high_hz: float = 8000.0
    scale: Scale = Scale.SLANEY
    norm: Norm = Norm.AREA

    def check(self) -> None:
        if not 0 <= self.low_hz < self.high_hz or self.bins < 1:
            raise ConfigError(
                f"{self.bins} bins from {self.low_hz} to {self.high_hz} Hz",
                where="high_hz",
                remedy="Use such as 80 bins from 0 to 8000 Hz.",
            )

    def matrix(self, *, rate_hz: int, size: int) -> Float[np.ndarray, "M K"]:
        """Returns the weight of each frequency in each bin, in float64.

        Args:
            rate_hz: of the samples.
            size: samples in a transform.

        Raises:
            ConfigError: the rate does not reach `high_hz`, or a triangle falls between two frequencies.
        """
        if 2 * self.high_hz > rate_hz:
            raise ConfigError(
                f"{rate_hz} samples a second reach {rate_hz / 2:g} Hz, not {self.high_hz:g}",
                where="high_hz",
                remedy=f"Use high_hz={rate_hz / 2:g} or less.",
            )
        frequencies = np.fft.rfftfreq(size, 1 / rate_hz)
        ends = self.scale.mel(np.asarray([self.low_hz, self.high_hz]))
        corners = self.scale.hz(np.linspace(ends[0], ends[1], self.bins + 2))
        widths = np.diff(corners)[:, None]
        away = corners[:, None] - frequencies
        triangles = np.maximum(0, np.minimum(-away[:-2] / widths[:-1], away[2:] / widths[1:]))
        empty = np.flatnonzero(~triangles.any(axis=1))
        if len(empty):
            raise ConfigError(
                f"bin {empty[0]} of {self.bins}, around {corners[empty[0] + 1]:.0f} Hz, "
                f"falls between two of the frequencies, {rate_hz / size:.1f} Hz apart",
                where="bins",
                remedy=f"Use fewer bins, or size={2 * size}.",
            )
        return triangles * (2 / (corners[2:] - corners[:-2])[:, None] if self.norm is Norm.AREA else 1)
