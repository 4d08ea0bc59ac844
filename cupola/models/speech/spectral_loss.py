"""How far one sound is from another by its spectra, whatever its phases: mel frames, and several resolutions.

Invariant: a sound is at distance 0 from itself, and each row of a batch is measured by itself.
Source: Kong et al. 2020, arXiv 2010.05646, equation 3 (mel); Yamamoto et al. 2020, arXiv 1910.11480,
equations 4 to 6 (magnitudes).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.data.audio.features import LogMel
from cupola.data.audio.spectrum import Stft

RESOLUTIONS = (Stft(size=512, hop=128), Stft(size=1024, hop=256), Stft(size=2048, hop=512))
"""Frames from 20 ms to 130 ms at 16 to 24 kHz."""

LEAST = 1e-5
"""Magnitudes below this count as this: 150 dB below full scale."""


class SpectralLoss(Value):
    """A sum of distances between spectra.

    Args:
        mel: weight of the mean absolute difference of log-mel frames.
        magnitudes: weight of the distance between magnitudes.
        stfts: at which resolutions magnitudes are looked at.
    """

    mel: float = 45.0
    magnitudes: float = 0.0
    stfts: tuple[Stft, ...] = RESOLUTIONS

    def check(self) -> None:
        if min(self.mel, self.magnitudes) < 0 or not self.mel + self.magnitudes:
            raise ConfigError(
                f"mel={self.mel}, magnitudes={self.magnitudes}",
                where="mel",
                remedy="Weights are 0 or more, and one is above 0, such as 45 and 0.",
            )
        if self.magnitudes and not self.stfts:
            raise ConfigError(
                f"magnitudes={self.magnitudes} of no resolutions",
                where="stfts",
                remedy="Name some, or use magnitudes=0.",
            )

    def __call__(
        self, made: Float[Array, "B N"], true: Float[Array, "B N"], front: LogMel
    ) -> tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]:
        """Returns the loss of each row, and what it is made of: "mel", and "magnitudes" where they count.

        Args:
            front: of the mel frames.

        Raises:
            AudioError: too few samples for a frame.
        """
        parts = {"mel": mel_distance(made, true, front)} if self.mel else {}
        if self.magnitudes:
            parts["magnitudes"] = sum(
                (magnitude_distance(made, true, stft) for stft in self.stfts[1:]),
                magnitude_distance(made, true, self.stfts[0]),
            ) / len(self.stfts)
        weights = {"mel": self.mel, "magnitudes": self.magnitudes}
        losses = [weights[name] * part for name, part in parts.items()]
        return sum(losses[1:], losses[0]), parts


def mel_distance(made: Float[Array, "B N"], true: Float[Array, "B N"], front: LogMel) -> Float[Array, " B"]:
    """Returns the mean absolute difference of the features of a front end."""
    return jnp.abs(front(made) - front(true)).mean((1, 2))


def magnitude_distance(made: Float[Array, "B N"], true: Float[Array, "B N"], stft: Stft) -> Float[Array, " B"]:
    """Returns |S - S'| / |S| + the mean of |log S - log S'|, of magnitudes S of the true and S' of the made sound."""
    ours, theirs = (jnp.maximum(jnp.abs(stft(x)), LEAST) for x in (made, true))
    relative = _norm(theirs - ours) / _norm(theirs)
    return relative + jnp.abs(jnp.log(theirs) - jnp.log(ours)).mean((1, 2))


def _norm(x: Float[Array, "B T K"]) -> Float[Array, " B"]:
    # The root of nothing has no gradient.
    total = jnp.square(x).sum((1, 2))
    return jnp.where(total > 0, jnp.sqrt(jnp.where(total > 0, total, 1)), 0)
