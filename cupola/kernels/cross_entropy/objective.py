"""What a cross-entropy is made of beside the target's log-probability, and what it says aside.

Invariant: the plain objective adds nothing, and costs nothing.
Source: Szegedy et al. 2016, section 7 (label smoothing); Chowdhery et al. 2022, section 5 (z-loss);
Gemma Team 2024, arXiv 2408.00118, section 2 (soft-capping); Hsu et al. 2024 (Liger-Kernel), section 3.2.
"""

from typing import NamedTuple

from jaxtyping import Array, Float

from cupola.config.value import Value
from cupola.core.errors import ConfigError


class Objective(Value):
    """The loss of one position over logits l of V classes with weights c (one each, unless given) and target y.

    With s the label smoothing, m = log sum exp(l), and l already capped:

        (1 - s) c[y] (m - l[y])  +  s / V  sum_v c[v] (m - l[v])  +  z_loss m^2

    Args:
        label_smoothing: share of the target that is spread over all classes.
        z_loss: weight of the square of the log of the normalizer.
        soft_cap: logits become soft_cap * tanh(logits / soft_cap); None leaves them.
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    soft_cap: float | None = None

    def check(self) -> None:
        if not 0 <= self.label_smoothing <= 1:
            raise ConfigError(
                f"{self.label_smoothing} is no share", where="label_smoothing", remedy="Use a number from 0 to 1."
            )
        if self.z_loss < 0:
            raise ConfigError(
                f"{self.z_loss} would reward a large normalizer", where="z_loss", remedy="Use 0 or a small number."
            )
        if self.soft_cap is not None and self.soft_cap <= 0:
            raise ConfigError(
                f"{self.soft_cap} caps nothing", where="soft_cap", remedy="Use a positive number, or None for no cap."
            )


PLAIN = Objective()


class Losses(NamedTuple):
    """Sums over positions, each times its weight; only `loss` has a gradient.

    Args:
        loss: the whole of it, z-loss included.
        z_loss: what the z-loss is of it.
        correct: of positions whose first largest logit is the target's; over the sum of weights, the accuracy.
    """

    loss: Float[Array, ""]
    z_loss: Float[Array, ""]
    correct: Float[Array, ""]
