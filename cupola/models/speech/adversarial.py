"""The game of a generator of sound and its discriminators: what each side loses.

Invariant: one loss, whose gradient moves the discriminators by theirs alone and the generator by its own
alone, so that both are moved in one step (`optim/learners.py`).
Source: Lim and Ye 2017, arXiv 1705.02894 (hinge); Mao et al. 2017, arXiv 1611.04076 (least squares);
Kong et al. 2020, arXiv 2010.05646, section 2.4 (matching); weights: Siuzdak 2023, arXiv 2306.00814.
"""

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.core.module import Module, Tree
from cupola.data.audio.features import LogMel
from cupola.models.speech.discriminators import Discriminators, Verdict
from cupola.models.speech.spectral_loss import SpectralLoss
from cupola.models.speech.vocos import Vocos

Verdicts = tuple[tuple[Verdict, ...], tuple[Verdict, ...]]
"""Of the discriminators by period, and of those by resolution."""


class Game(enum.Enum):
    """What a score of a real and of a made sound costs each side."""

    HINGE = "hinge"
    """Scores beyond 1 and -1 are good enough."""
    LEAST_SQUARES = "least_squares"
    """Real is 1, made is 0."""

    def judge(self, real: Float[Array, "B S"], made: Float[Array, "B S"]) -> Float[Array, " B"]:
        """Returns what the discriminator loses."""
        if self is Game.HINGE:
            return jax.nn.relu(1 - real).mean(1) + jax.nn.relu(1 + made).mean(1)
        return jnp.square(1 - real).mean(1) + jnp.square(made).mean(1)

    def fool(self, made: Float[Array, "B S"]) -> Float[Array, " B"]:
        """Returns what the generator loses."""
        return (jax.nn.relu(1 - made) if self is Game.HINGE else jnp.square(1 - made)).mean(1)


class VocosGAN(Module):
    """A Vocos and what judges it.

    Args:
        generator: makes sound.
        discriminators: tell it from real sound; not kept when training is over.
    """

    generator: Vocos
    discriminators: Discriminators = Discriminators()


class AdversarialLoss(Value):
    """What counts how much.

    Args:
        spectral: distances of the spectra.
        game: between generator and discriminators.
        matching: weight of the distance between what the discriminators' layers see.
        resolutions: weight of the discriminators by resolution; those by period weigh 1.
    """

    spectral: SpectralLoss = SpectralLoss()
    game: Game = Game.HINGE
    matching: float = 1.0
    resolutions: float = 0.1

    def check(self) -> None:
        if self.matching < 0 or self.resolutions <= 0:
            raise ConfigError(
                f"matching={self.matching}, resolutions={self.resolutions}",
                where="matching",
                remedy="Use such as 1 and 0.1.",
            )

    def __call__(
        self,
        model: VocosGAN,
        p: Tree,
        features: Float[Array, "B T M"],
        true: Float[Array, "B N"],
        front: LogMel,
    ) -> tuple[Float[Array, " B"], dict[str, Float[Array, " B"]]]:
        """Returns the loss of each row, both sides' together, and what it is made of.

        Parts: "generator" and "discriminators", what each loses; "fool", "matching" and "mel" of the former.

        Cost: the discriminators see what was made twice, of which the compiler makes one pass forward.
        """
        made = model.generator(p["generator"], features, true.shape[1])
        judges = p["discriminators"]
        on_true = model.discriminators(judges, true)
        on_made = model.discriminators(judges, jax.lax.stop_gradient(made))
        on_own = model.discriminators(jax.lax.stop_gradient(judges), made)
        loss, parts = self.spectral(made, true, front)
        parts |= {"fool": self._mean(on_own, self.game.fool)}
        loss = loss + parts["fool"]
        if self.matching:
            parts["matching"] = self._matched(on_own, jax.lax.stop_gradient(on_true))
            loss = loss + self.matching * parts["matching"]
        judged = self._mean(on_true, lambda real, made: self.game.judge(real, made), on_made)
        return loss + judged, {"generator": loss, "discriminators": judged, **parts}

    def _mean(self, verdicts: Verdicts, lose, *others: Verdicts) -> Float[Array, " B"]:
        """The mean of what is lost by period, and that by resolution with its weight."""
        total = jnp.zeros(len(next(v for group in verdicts for v in group).scores))
        for group, weight, *beside in zip(verdicts, (1.0, self.resolutions), *others, strict=True):
            for each in zip(group, *beside, strict=True):
                total = total + weight / len(group) * lose(*(verdict.scores for verdict in each))
        return total

    def _matched(self, ours: Verdicts, theirs: Verdicts) -> Float[Array, " B"]:
        total = jnp.zeros(len(next(v for group in ours for v in group).scores))
        for group, true, weight in zip(ours, theirs, (1.0, self.resolutions), strict=True):
            for one, other in zip(group, true, strict=True):
                for x, y in zip(one.maps, other.maps, strict=True):
                    apart = jnp.abs(x - y).reshape(len(total), -1).mean(1)
                    total = total + weight / len(group) * apart
        return total
