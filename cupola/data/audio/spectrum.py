"""The short-time Fourier transform and its inverse, in JAX: for features, for losses, for Griffin-Lim.

Not here: mel bins (`mel.py`). Frames are cut and added as shifted slices, never gathered or scattered,
so gradients have the same bits every time. Invariant: the inverse of a transform is the signal, to
float32, wherever some window reaches.
Source: Griffin and Lim 1984, equation 6, for the inverse.
"""

import enum

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Float32

from cupola.config.value import Value
from cupola.core.errors import AudioError, ConfigError


class Padding(enum.Enum):
    """How the signal is continued, as its mirror image, beyond its ends."""

    CENTRED = "centred"
    """Half a transform at both ends: frame t is around sample t * hop, and there is one more than hops."""
    BETWEEN = "between"
    """Half of a transform less a hop: frame t is around the middle of hop t, one for each hop."""


class Stft(Value):
    """Spectra of overlapping frames under a periodic Hann window.

    Args:
        size: samples in a transform; the window stands in its middle, zeros around it.
        hop: samples from one frame to the next.
        window: samples in the window; None means `size`.
        padding: how the ends are treated.
    """

    size: int
    hop: int
    window: int | None = None
    padding: Padding = Padding.CENTRED

    def check(self) -> None:
        width = self.size if self.window is None else self.window
        if not 0 < self.hop < width <= self.size or self.size % 2:
            raise ConfigError(
                f"size={self.size}, window={width}, hop={self.hop}",
                where="hop",
                remedy="They are hop < window <= size, and size is even; such as 1024, 1024 and 256.",
            )
        if self.padding is Padding.BETWEEN and (self.size - self.hop) % 2:
            raise ConfigError(
                f"size={self.size} less hop={self.hop} is odd",
                where="hop",
                remedy=f"Use hop={self.hop + 1}, or CENTRED.",
            )

    @property
    def bins(self) -> int:
        """Frequencies from 0 to half the rate."""
        return self.size // 2 + 1

    @property
    def margin(self) -> int:
        """Samples added at each end."""
        return self.size // 2 if self.padding is Padding.CENTRED else (self.size - self.hop) // 2

    def frames(self, samples: int) -> int:
        """Returns how many frames so many samples have."""
        return (samples + 2 * self.margin - self.size) // self.hop + 1

    def samples(self, frames: int) -> int:
        """Returns the least number of samples that have so many frames."""
        return (frames - 1) * self.hop + self.size - 2 * self.margin

    def weights(self) -> Float[np.ndarray, " size"]:
        """Returns the window, in float64."""
        width = self.size if self.window is None else self.window
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)
        before = (self.size - width) // 2
        return np.pad(hann, (before, self.size - width - before))

    def __call__(self, samples: Float[Array, "*batch N"]) -> Complex[Array, "*batch T K"]:
        """Returns the spectrum of each frame.

        Raises:
            AudioError: too few samples to be mirrored at the ends.
        """
        return self.within(self.padded(samples))

    def padded(self, samples: Float[Array, "*batch N"]) -> Float[Array, "*batch M"]:
        """Returns the samples with their mirror images at both ends.

        Raises:
            AudioError: too few samples to be mirrored.
        """
        if samples.shape[-1] <= self.margin:
            raise AudioError(
                f"{samples.shape[-1]} samples are too few to be mirrored over {self.margin}",
                remedy=f"Give at least {self.margin + 1} samples.",
            )
        sides = [(0, 0)] * (samples.ndim - 1) + [(self.margin, self.margin)]
        return jnp.pad(samples, sides, mode="reflect")

    def within(self, samples: Float[Array, "*batch N"]) -> Complex[Array, "*batch T K"]:
        """Returns the spectrum of each whole frame of samples that are padded already."""
        weights = jnp.asarray(self.weights(), jnp.float32)
        framed = self._framed(samples.astype(jnp.float32))
        return jnp.fft.rfft(framed * weights.reshape([1] * (framed.ndim - 1) + [-1]))

    def inverse(self, spectrum: Complex[Array, "*batch T K"], samples: int | None = None) -> Float[Array, "*batch N"]:
        """Returns the signal whose transform is nearest to a spectrum, without the margins.

        Args:
            spectrum: of T frames.
            samples: how many to return; None means the least that have T frames.
        """
        count = self.samples(spectrum.shape[-2]) if samples is None else samples
        whole = self.inverse_within(spectrum)[..., self.margin :]
        missing = max(0, count - whole.shape[-1])
        return jnp.pad(whole, [(0, 0)] * (whole.ndim - 1) + [(0, missing)])[..., :count]

    def inverse_within(self, spectrum: Complex[Array, "*batch T K"]) -> Float[Array, "*batch N"]:
        """Returns the signal whose transform without padding is nearest to a spectrum; 0 where no window reaches."""
        windowed = self.windowed(spectrum)
        squares = np.broadcast_to(np.square(self.weights()), (spectrum.shape[-2], self.size))
        reach = self.added(squares, np)
        # Where the window has all but ended, what it divides by is smaller than its rounding.
        scale = np.where(reach > 1e-8, 1 / np.maximum(reach, 1e-8), 0)
        added = self.added(windowed, jnp)
        return added * jnp.asarray(scale, jnp.float32).reshape([1] * (added.ndim - 1) + [-1])

    def windowed(self, spectrum: Complex[Array, "*batch T K"]) -> Float[Array, "*batch T size"]:
        """Returns each frame's samples under the window, before they are added up (`OverlapAdd`)."""
        frames = jnp.fft.irfft(spectrum, self.size)
        return frames * jnp.asarray(self.weights(), jnp.float32).reshape([1] * (frames.ndim - 1) + [-1])

    def _framed(self, samples: Float[Array, "*batch N"]) -> Float[Array, "*batch T size"]:
        count = (samples.shape[-1] - self.size) // self.hop + 1
        shifts = -(-self.size // self.hop)
        need = (count + shifts - 1) * self.hop
        kept = samples[..., : min(need, samples.shape[-1])]
        filled = jnp.pad(kept, [(0, 0)] * (kept.ndim - 1) + [(0, need - kept.shape[-1])])
        hops = filled.reshape(*samples.shape[:-1], -1, self.hop)
        return jnp.concatenate([hops[..., i : i + count, :] for i in range(shifts)], axis=-1)[..., : self.size]

    def added(self, frames, xp):
        """The transpose of `_framed`: frames added up where they overlap; with numpy or jax.numpy as `xp`."""
        shifts = -(-self.size // self.hop)
        none = [(0, 0)] * (frames.ndim - 1)
        filled = xp.pad(frames, [*none, (0, shifts * self.hop - self.size)])
        hops = filled.reshape(*frames.shape[:-1], shifts, self.hop)
        added = sum(xp.pad(hops[..., i, :], [*none[:-1], (i, shifts - 1 - i), (0, 0)]) for i in range(shifts))
        flat = added.reshape(*added.shape[:-2], -1)
        return flat[..., : (frames.shape[-2] - 1) * self.hop + self.size]


class OverlapAdd:
    """Frames added up as they come: the samples of `Stft.inverse`, each as soon as no later frame reaches it.

    Args:
        stft: whose `windowed` makes the frames.
    """

    def __init__(self, stft: Stft):
        self._stft, self._squares = stft, np.square(stft.weights())
        self._frames, self._given = 0, 0
        self._added = np.zeros((2, stft.margin + stft.size))

    def add(self, frames: Float[np.ndarray, "T size"]) -> Float32[np.ndarray, " N"]:
        """Returns the samples that are complete with these frames."""
        if not len(frames):
            return np.zeros(0, np.float32)
        new = np.stack([self._stft.added(x, np) for x in (frames, np.broadcast_to(self._squares, frames.shape))])
        begin = self._frames * self._stft.hop - self._given
        end = begin + new.shape[1]
        self._added = np.pad(self._added, ((0, 0), (0, max(0, end - self._added.shape[1]))))
        self._added[:, begin:end] += new
        self._frames += len(frames)
        complete = self._frames * self._stft.hop - self._stft.margin
        return self._taken(min(complete, self._stft.samples(self._frames)))

    def finish(self, samples: int) -> Float32[np.ndarray, " N"]:
        """Returns the rest of so many samples, counted from the first; what no frame reaches is 0."""
        return self._taken(samples)

    def _taken(self, samples: int) -> Float32[np.ndarray, " N"]:
        """The samples up to this one that were not given yet; the margin is kept in front of them."""
        margin, count = self._stft.margin, max(0, samples - self._given)
        short = margin + count - self._added.shape[1]
        self._added = np.pad(self._added, ((0, 0), (0, max(0, short))))
        added, reach = self._added[:, margin : margin + count]
        self._added = self._added[:, count:]
        self._given += count
        # Where the window has all but ended, what it divides by is smaller than its rounding.
        return np.where(reach > 1e-8, added / np.maximum(reach, 1e-8), 0).astype(np.float32)


def phase(spectrum: Complex[Array, "*shape"]) -> Complex[Array, "*shape"]:
    """Returns each value divided by its magnitude; 1 at 0."""
    size = jnp.abs(spectrum)
    return jnp.where(size > 0, spectrum / jnp.where(size > 0, size, 1), 1)


def random_phase(key: jax.Array, shape: tuple[int, ...]) -> Complex[Array, "..."]:
    """Returns values of magnitude 1 and of random angle."""
    return jnp.exp(2j * jnp.pi * jax.random.uniform(key, shape))
