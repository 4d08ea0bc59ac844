"""Clips: samples of one channel with their rate, and what is done to their level and length.

Not here: files (`files.py`), spectra (`spectrum.py`). Invariant: samples are finite float32, full scale is 1.
Source: ITU-R BS.1770-5 for loudness.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, Float32

from cupola.core.errors import AudioError, ConfigError
from cupola.core.extra import bring

_FRAME_SECONDS, _STEP_SECONDS = 0.04, 0.01
"""Frames in which sound is told from silence."""

_BLOCK_SECONDS, _BLOCK_STEP_SECONDS = 0.4, 0.1
"""Blocks in which loudness is measured."""

_SILENT = 10 ** (-90 / 20)
"""A peak below this is silence: three steps of 16 bits, as dither leaves them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """Sound of one channel.

    Args:
        samples: full scale is from -1 to 1; louder is kept as it is.
        rate_hz: samples a second.

    Raises:
        AudioError: no samples, or some that are not finite.
    """

    samples: Float32[np.ndarray, " N"]
    rate_hz: int

    def __post_init__(self):
        if self.rate_hz < 1:
            raise ConfigError(f"{self.rate_hz} samples a second", where="rate_hz", remedy="Use a rate such as 24000.")
        if not self.samples.size:
            raise AudioError("holds no samples", remedy="Give a recording that has any.")
        if not np.isfinite(self.samples).all():
            bad = int(np.flatnonzero(~np.isfinite(self.samples))[0])
            raise AudioError(
                f"sample {bad} is {self.samples[bad]}", remedy="Record it again, or set such samples to 0."
            )

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate_hz

    @property
    def peak(self) -> float:
        """The largest magnitude of a sample."""
        return float(np.abs(self.samples).max())

    @property
    def is_silent(self) -> bool:
        """Whether nothing rises above the last bits of 16."""
        return self.peak < _SILENT

    def check_sound(self) -> None:
        """Checks that it is not silent.

        Raises:
            AudioError: it is.
        """
        if self.is_silent:
            raise AudioError(
                f"{self.seconds:.1f} s of silence: its peak is {self.peak:.1g}",
                remedy="Leave it out, or check the microphone and the channel.",
            )

    def at_rate(self, rate_hz: int) -> "Clip":
        """Returns the same sound at another rate, band-limited to the lower of the two.

        Raises:
            Unsupported: the extra `speech` is not installed.
        """
        if rate_hz == self.rate_hz:
            return self
        soxr = bring("soxr", "speech")
        resampled = soxr.resample(self.samples, self.rate_hz, _positive(rate_hz), quality="VHQ")
        if not len(resampled):
            raise AudioError(
                f"{len(self.samples)} samples at {self.rate_hz} Hz are none at {rate_hz} Hz",
                remedy="Give a longer one.",
            )
        return Clip(resampled, rate_hz)

    def at_peak(self, peak: float = 0.95) -> "Clip":
        """Returns it scaled so that its largest magnitude is `peak`.

        Raises:
            AudioError: it is silent.
        """
        self.check_sound()
        return self._scaled(peak / self.peak)

    def at_loudness(self, loudness_lufs: float = -23.0, *, peak: float = 1.0) -> "Clip":
        """Returns it scaled to a loudness, or as near to it as `peak` allows.

        Raises:
            AudioError: it is silent.
        """
        self.check_sound()
        gain = 10 ** ((loudness_lufs - self.loudness_lufs()) / 20)
        return self._scaled(min(gain, peak / self.peak))

    def loudness_lufs(self) -> float:
        """Returns the gated loudness of BS.1770; one that is shorter than a block (0.4 s) is one block.

        Raises:
            AudioError: it is silent.
        """
        self.check_sound()
        powers = np.square(_weighted(self.samples.astype(np.float64), self.rate_hz))
        size = min(round(_BLOCK_SECONDS * self.rate_hz), len(powers))
        blocks = _frame_means(powers, size, max(1, round(_BLOCK_STEP_SECONDS * self.rate_hz)))
        loud = blocks[blocks > _power(-70.0)]
        if not len(loud):
            return _lufs(blocks.max())
        return _lufs(loud[loud > loud.mean() / 10].mean())

    def trimmed(self, *, below_db: float = 45.0, keep_seconds: float = 0.05) -> "Clip":
        """Returns it without the silence at its start and its end.

        Args:
            below_db: a frame is silence where its power is so far below the loudest frame's.
            keep_seconds: how much of the silence stays at either side.

        Raises:
            AudioError: it is silent.
        """
        self.check_sound()
        if below_db <= 0 or keep_seconds < 0:
            raise ConfigError(
                f"below_db={below_db}, keep_seconds={keep_seconds}", where="trimmed", remedy="Use 45 and 0.05."
            )
        size, step = (max(1, round(seconds * self.rate_hz)) for seconds in (_FRAME_SECONDS, _STEP_SECONDS))
        padded = np.pad(np.square(self.samples.astype(np.float64)), size // 2)
        powers = _frame_means(padded, size, step)
        loud = np.flatnonzero(powers > powers.max() * 10 ** (-below_db / 10))
        keep = round(keep_seconds * self.rate_hz)
        start, stop = loud[0] * step - keep, (loud[-1] + 1) * step + keep
        return Clip(self.samples[max(0, start) : stop], self.rate_hz)

    def _scaled(self, gain: float) -> "Clip":
        return Clip(self.samples * np.float32(gain), self.rate_hz)


def _positive(rate_hz: int) -> int:
    if rate_hz < 1:
        raise ConfigError(f"{rate_hz} samples a second", where="rate_hz", remedy="Use a rate such as 24000.")
    return rate_hz


def _frame_means(values: Float[np.ndarray, " N"], size: int, step: int) -> Float[np.ndarray, " T"]:
    """Means over windows of `size` that begin every `step`, at least one."""
    size = min(size, len(values))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    starts = np.arange(0, len(values) - size + 1, step)
    # Differences of a running sum may fall below 0 by rounding.
    return np.maximum(sums[starts + size] - sums[starts], 0) / size


def _weighted(samples: Float[np.ndarray, " N"], rate_hz: int) -> Float[np.ndarray, " N"]:
    """Applies BS.1770's two filters, a shelf for the head and a high-pass, made anew for each rate.

    The standard gives coefficients for 48 kHz alone; these are the analogue filters behind them.
    Applied by the response at each frequency, over samples padded against wrapping around.
    """
    spectrum = np.fft.rfft(samples, 2 * len(samples) + rate_hz)
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(2 * len(samples) + rate_hz))
    shelf = _shelf(math.tan(math.pi * min(1681.974450955533 / rate_hz, 0.49)), 0.7071752369554196, 3.999843853973347)
    high_pass = _high_pass(math.tan(math.pi * 38.13547087602444 / rate_hz), 0.5003270373238773)
    for above, below in (shelf, high_pass):
        spectrum *= np.polyval(above[::-1], turn) / np.polyval(below[::-1], turn)
    return np.fft.irfft(spectrum, 2 * len(samples) + rate_hz)[: len(samples)]


_Filter = tuple[list[float], list[float]]
"""Coefficients of z^0, z^-1, z^-2 above and below the line."""


def _shelf(k: float, quality: float, gain_db: float) -> _Filter:
    high = 10 ** (gain_db / 20)
    band = high**0.4996667741545416
    below = [1 + k / quality + k * k, 2 * (k * k - 1), 1 - k / quality + k * k]
    above = [high + band * k / quality + k * k, 2 * (k * k - high), high - band * k / quality + k * k]
    return above, below


def _high_pass(k: float, quality: float) -> _Filter:
    norm = 1 + k / quality + k * k
    return [1.0, -2.0, 1.0], [1.0, 2 * (k * k - 1) / norm, (1 - k / quality + k * k) / norm]


def _lufs(power: float) -> float:
    return -0.691 + 10 * math.log10(max(power, 1e-20))


def _power(lufs: float) -> float:
    return 10 ** ((lufs + 0.691) / 10)
