"""Log-mel features: one frozen value says how sound becomes what a model sees, and is what names it.

Not here: back to sound (`griffin_lim.py`). Invariant: the features of a clip do not depend on what
it is batched with, nor on the length that it is padded to.
Source: Shen et al., arXiv 1712.05884, section 2.1; Radford et al., arXiv 2212.04356, section 2.2.
"""

import enum
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from cupola.config.value import Value
from cupola.core.errors import AudioError, ConfigError
from cupola.data.audio.clip import Clip
from cupola.data.audio.mel import MelFilters, Norm, Scale
from cupola.data.audio.spectrum import Padding, Stft


class Compression(Value):
    """The natural logarithm of what is above a floor.

    Args:
        floor: what is smaller counts as this.
    """

    floor: float = 1e-5

    def check(self) -> None:
        if self.floor <= 0:
            raise ConfigError(f"the logarithm of {self.floor}", where="floor", remedy="Use a floor such as 1e-5.")

    def __call__(self, mel: Float[Array, "*batch T M"]) -> Float[Array, "*batch T M"]:
        """Returns the logarithms."""
        return jnp.log(jnp.maximum(mel, self.floor))

    def inverse(self, features: Float[Array, "*batch T M"]) -> Float[Array, "*batch T M"]:
        """Returns what has these logarithms."""
        return jnp.exp(features)


class RangeCompression(Compression):
    """Whisper's: decimal logarithms, none more than a range below the clip's largest, brought to about -1 to 1.

    Args:
        floor: what is smaller counts as this.
        range_log10: how far below the largest is kept.
    """

    floor: float = 1e-10
    range_log10: float = 8.0

    def __call__(self, mel: Float[Array, "*batch T M"]) -> Float[Array, "*batch T M"]:
        logs = jnp.log10(jnp.maximum(mel, self.floor))
        largest = logs.max(axis=(-2, -1), keepdims=True)
        return (jnp.maximum(logs, largest - self.range_log10) + 4) / 4

    def inverse(self, features: Float[Array, "*batch T M"]) -> Float[Array, "*batch T M"]:
        return 10 ** (features * 4 - 4)


class Spectrum(enum.Enum):
    """What the mel filters add up."""

    MAGNITUDE = 1
    POWER = 2


class LastFrame(enum.Enum):
    """What becomes of the frame around the end of the clip."""

    KEPT = "kept"
    DROPPED = "dropped"


class LogMel(Value):
    """A front end: sound at one rate to log-mel frames.

    Args:
        rate_hz: samples a second.
        stft: the spectra.
        mel: the bins.
        spectrum: what the bins add up.
        compression: what is done to the bins.
        last_frame: whether the last frame stays.

    Example:
        features = TACOTRON2.of(read("speech.wav", rate_hz=TACOTRON2.rate_hz))    # [T, 80]
    """

    rate_hz: int
    stft: Stft
    mel: MelFilters
    spectrum: Spectrum = Spectrum.MAGNITUDE
    compression: Compression = Compression()
    last_frame: LastFrame = LastFrame.KEPT

    def check(self) -> None:
        if self.rate_hz < 1:
            raise ConfigError(f"{self.rate_hz} samples a second", where="rate_hz", remedy="Use a rate such as 24000.")
        self.filters()

    @property
    def bins(self) -> int:
        """Features in a frame."""
        return self.mel.bins

    @property
    def frame_seconds(self) -> float:
        """Time from one frame to the next."""
        return self.stft.hop / self.rate_hz

    def filters(self) -> Float[np.ndarray, "M K"]:
        """Returns the weight of each frequency in each bin, in float64."""
        return self.mel.matrix(rate_hz=self.rate_hz, size=self.stft.size)

    def frames(self, samples: int) -> int:
        """Returns how many frames so many samples have."""
        return self.stft.frames(samples) - (self.last_frame is LastFrame.DROPPED)

    def samples(self, frames: int) -> int:
        """Returns the least number of samples that have so many frames."""
        return self.stft.samples(frames + (self.last_frame is LastFrame.DROPPED))

    def __call__(self, samples: Float[Array, "*batch N"]) -> Float[Array, "*batch T M"]:
        """Returns the features of samples at `rate_hz`.

        Raises:
            AudioError: too few samples to be mirrored at the ends.
        """
        return self.within(self.stft.padded(samples))

    def within(self, samples: Float[Array, "*batch N"]) -> Float[Array, "*batch T M"]:
        """Returns the features of each whole frame of samples that are padded already."""
        return self.compression(self.mels(self.stft.within(samples)))

    def mels(self, spectrum: Array) -> Float[Array, "*batch T M"]:
        """Returns the bins of spectra, before they are compressed, without a last frame that is dropped."""
        kept = spectrum[..., :-1, :] if self.last_frame is LastFrame.DROPPED else spectrum
        size = jnp.abs(kept)
        summed = jnp.square(size) if self.spectrum is Spectrum.POWER else size
        return jnp.einsum(
            "...tk,mk->...tm", summed, jnp.asarray(self.filters(), jnp.float32), precision=jax.lax.Precision.HIGHEST
        )

    def of(self, clip: Clip) -> Float32[np.ndarray, "T M"]:
        """Returns the features of a clip, computed at one of few lengths so that few programs are compiled.

        Raises:
            AudioError: it is of another rate, or too short.
        """
        if clip.rate_hz != self.rate_hz:
            raise AudioError(
                f"{clip.rate_hz} samples a second, where this front end takes {self.rate_hz}",
                where="rate_hz",
                remedy=f"Use clip.at_rate({self.rate_hz}), or read(path, rate_hz={self.rate_hz}).",
            )
        if len(clip.samples) <= self.stft.margin:
            raise AudioError(
                f"{clip.seconds * 1000:.0f} ms are too short",
                remedy=f"Give at least {1000 * (self.stft.margin + 1) / self.rate_hz:.0f} ms.",
            )
        padded = np.pad(clip.samples, self.stft.margin, mode="reflect")
        length = _rounded_up(len(padded), self.rate_hz)
        # The zeros are in frames that are cut off, or in the part of a frame that is dropped.
        made = _compiled(self)(np.pad(padded, (0, length - len(padded))))
        return np.asarray(made)[: self.frames(len(clip.samples))]


@functools.lru_cache(maxsize=16)
def _compiled(front: LogMel):
    return jax.jit(front.within)


def _rounded_up(samples: int, rate_hz: int) -> int:
    """The next of 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12 ... seconds."""
    length = rate_hz
    while length < samples:
        length *= 2
    shorter = length * 3 // 4
    return shorter if samples <= shorter else length


TACOTRON2 = LogMel(
    rate_hz=24_000,
    stft=Stft(size=2048, hop=300, window=1200),
    mel=MelFilters(bins=80, low_hz=125.0, high_hz=7600.0, scale=Scale.HTK, norm=Norm.PEAK),
    compression=Compression(floor=0.01),
)
"""The paper's: frames of 50 ms every 12.5 ms. It names neither scale nor norm: these are its framework's."""

TACOTRON2_16K = LogMel(
    rate_hz=16_000,
    stft=Stft(size=1024, hop=200, window=800),
    mel=MelFilters(bins=80, low_hz=125.0, high_hz=7600.0, scale=Scale.HTK, norm=Norm.PEAK),
    compression=Compression(floor=0.01),
)
"""The paper's frames and bins, of recordings that hold nothing above 8 kHz."""

CHECKPOINTS_22K = LogMel(
    rate_hz=22_050,
    stft=Stft(size=1024, hop=256),
    mel=MelFilters(bins=80, low_hz=0.0, high_hz=8000.0),
    compression=Compression(floor=1e-5),
)
"""That of the common 22,050 Hz checkpoints of Tacotron 2 and WaveGlow."""

VOCODERS_22K = CHECKPOINTS_22K.replace("stft.padding", Padding.BETWEEN)
"""That of the common 22,050 Hz checkpoints of HiFi-GAN: one frame for each hop."""

WHISPER = LogMel(
    rate_hz=16_000,
    stft=Stft(size=400, hop=160),
    mel=MelFilters(bins=80, low_hz=0.0, high_hz=8000.0),
    spectrum=Spectrum.POWER,
    compression=RangeCompression(),
    last_frame=LastFrame.DROPPED,
)
"""Whisper's; its large-v3 has 128 bins: `WHISPER.replace("mel.bins", 128)`."""
