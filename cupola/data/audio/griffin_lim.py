"""Griffin-Lim: sound from log-mel features, without a model, in JAX.

Two problems, each a fixed number of steps under scan: magnitudes of which the mel filters make the
bins (least squares over what is not negative), then phases that agree from frame to frame.
Source: Beck and Teboulle 2009 (FISTA) for the first; Griffin and Lim 1984, with the momentum of
Perraudin, Balazs and Soendergaard 2013 (our momentum = their alpha), for the second.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cupola.core.errors import ConfigError
from cupola.core.module import Tree
from cupola.data.audio.clip import Clip
from cupola.data.audio.features import Spectrum
from cupola.data.audio.spectrum import phase, random_phase
from cupola.data.audio.vocoder import Vocoder


class GriffinLim(Vocoder):
    """The vocoder without parameters.

    Args:
        front: what made the features.
        steps: how often the phases are made to agree; 32 is fast, above 100 little changes.
        momentum: how much of the last change is added again; 0 is the method of 1984.
        sharpness: magnitudes are raised to this power; above 1 takes away some of the echo.
        inverse_steps: steps of the least squares from mel bins to frequencies.
    """

    steps: int = 60
    momentum: float = 0.99
    sharpness: float = 1.0
    inverse_steps: int = 100

    def check(self) -> None:
        if self.steps < 0 or self.inverse_steps < 1 or not 0 <= self.momentum <= 1 or self.sharpness <= 0:
            raise ConfigError(
                f"steps={self.steps}, inverse_steps={self.inverse_steps}, momentum={self.momentum}, "
                f"sharpness={self.sharpness}",
                where="steps",
                remedy="Use such as 60, 100, 0.99 and 1.",
            )

    def __call__(self, features: Float[Array, "*batch T M"], key: jax.Array) -> Float[Array, "*batch N"]:
        """Returns samples, the fewest that have T frames.

        Args:
            features: of `front`.
            key: draws the phases that are begun with.

        Cost: 2 * steps + 1 transforms of each frame, and 4 * inverse_steps * T * M * K FLOPs.
        """
        mel = self.front.compression.inverse(features)
        size = self.magnitudes(mel) ** self.sharpness
        return self._with_phases(size, key)

    def of(self, features: Float[np.ndarray, "T M"], *, params: Tree = None, seed: int = 0) -> Clip:
        """Returns the sound of the features of one clip.

        Args:
            params: none; whatever is given is not looked at.
            seed: draws the phases that are begun with.

        Raises:
            AudioError: they are not [T, M] of this front end, or not finite.
        """
        self.check_features(features)
        frames = len(features)
        # Few lengths, few compilations: what is added is as silent as a feature can be.
        added = -frames % 64
        padded = np.pad(features, ((0, added), (0, 0)), constant_values=features.min())
        samples = _compiled(self)(padded.astype(np.float32), jax.random.key(seed))
        return Clip(np.asarray(samples)[: self.front.samples(frames)], self.front.rate_hz)

    def magnitudes(self, mel: Float[Array, "*batch T M"]) -> Float[Array, "*batch T K"]:
        """Returns magnitudes, none negative, whose bins are nearest to `mel`."""
        filters = self.front.filters()
        step = 1 / float(np.linalg.norm(filters, 2) ** 2)
        matrix = jnp.asarray(filters, jnp.float32)
        start = jnp.maximum(_times(mel, jnp.asarray(np.linalg.pinv(filters).T, jnp.float32)), 0)

        def descend(state: Any, _: None) -> tuple[Any, None]:
            now, ahead, count = state
            error = _times(ahead, matrix.T) - mel
            after = jnp.maximum(ahead - step * _times(error, matrix), 0)
            count_after = (1 + jnp.sqrt(1 + 4 * count**2)) / 2
            return (after, after + (count - 1) / count_after * (after - now), count_after), None

        (found, _, _), _ = jax.lax.scan(descend, (start, start, jnp.float32(1)), None, length=self.inverse_steps)
        return jnp.sqrt(found) if self.front.spectrum is Spectrum.POWER else found

    def _with_phases(self, size: Float[Array, "*batch T K"], key: jax.Array) -> Float[Array, "*batch N"]:
        stft = self.front.stft

        def agree(state: Any, _: None) -> tuple[Any, None]:
            angles, before = state
            rebuilt = stft.within(stft.inverse_within(size * angles))
            return (phase(rebuilt + self.momentum * (rebuilt - before)), rebuilt), None

        start = random_phase(key, size.shape)
        (angles, _), _ = jax.lax.scan(agree, (start, jnp.zeros_like(start)), None, length=self.steps)
        return stft.inverse(size * angles, self.front.samples(size.shape[-2]))


@functools.lru_cache(maxsize=16)
def _compiled(vocoder: GriffinLim):
    return jax.jit(vocoder.__call__)


def _times(x: Float[Array, "*batch A"], y: Float[Array, "A B"]) -> Float[Array, "*batch B"]:
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)
