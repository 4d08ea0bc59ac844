"""The clipped policy objective and its averages, over tokens' log-probabilities or fused with the linear head.

With r = p / p_old of a token, A its advantage and k the divergence from a reference model:

    loss of a token = -min(r A, clip(r, 1 - low, 1 + high) A) + divergence * k,  k = ref/p - log(ref/p) - 1

Not here: sampling answers and their rewards. Invariant: nothing flows to old or reference log-probabilities.
Source: Schulman et al. 2017, arXiv 1707.06347, equation 7 (PPO); Shao et al. 2024, arXiv 2402.03300, equations 3
and 4 (GRPO); Yu et al. 2025, arXiv 2503.14476, equation 8 (DAPO); Liu et al. 2025, arXiv 2503.20783, section 3.2
(Dr. GRPO).
"""

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cupola.config.value import Value
from cupola.core.dtype import FLOAT32, Precision
from cupola.core.errors import ConfigError, ShapeError
from cupola.kernels.cross_entropy import linear_log_probs

fixed = jax.lax.stop_gradient


class Average(enum.Enum):
    """How tokens' losses become one number."""

    ANSWERS = "answers"
    """The mean over answers of the mean over an answer's tokens: long answers' tokens count less."""
    TOKENS = "tokens"
    """The mean over all tokens."""
    LENGTH = "length"
    """The sum over tokens, over answers times the longest an answer may be: each token counts alike in any batch."""


class Scale(enum.Enum):
    """What a group's rewards are divided by, once their mean is taken off."""

    DEVIATION = "deviation"
    """Their standard deviation, plus 1e-4: groups that are nearly settled weigh as much as others."""
    NONE = "none"


class Clipped(Value):
    """A clipped policy objective.

    Args:
        low: how far below 1 the ratio may fall before a step no longer gains by it.
        high: how far above.
        divergence: weight of the divergence from the reference model; 0 needs no reference.
    """

    low: float = 0.2
    high: float = 0.2
    divergence: float = 0.0
    average: Average = Average.TOKENS

    def check(self) -> None:
        for where in ("low", "high", "divergence"):
            if getattr(self, where) < 0:
                raise ConfigError(f"{getattr(self, where)} is negative", where=where, remedy="Use 0 or more.")
        if self.low > 1:
            raise ConfigError(f"{self.low} leaves a negative ratio", where="low", remedy="Use at most 1.")

    def __call__(
        self,
        log_probs: Float[Array, "B T"],
        old: Float[Array, "B T"],
        advantages: Float[Array, "#B #T"],
        weights: Float[Array, "B T"],
        *,
        reference: Float[Array, "B T"] | None = None,
        longest: int | None = None,
    ) -> Float[Array, ""]:
        """Returns the loss of a batch; positions of weight 0 may hold anything, and no answer counting gives 0.

        Args:
            old: log-probabilities of the policy that sampled the answers.
            advantages: one each answer, or each token.
            reference: log-probabilities of the reference model, where `divergence` is not 0.
            longest: tokens that an answer may have, for the average LENGTH; None: the width of the batch.

        Raises:
            ConfigError: a divergence without a reference, or a reference that nothing looks at.
        """
        if (reference is None) != (self.divergence == 0):
            raise ConfigError(
                "a divergence needs a reference, and a reference a divergence",
                where="divergence",
                remedy="Pass reference=, or set divergence to 0." if reference is None else "Leave reference= out.",
            )
        counts = weights != 0
        log_probs = jnp.where(counts, log_probs, 0)
        ratio = jnp.exp(log_probs - fixed(jnp.where(counts, old, 0)))
        gain = fixed(jnp.where(counts, advantages, 0))
        losses = -jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - self.low, 1 + self.high) * gain)
        if reference is not None:
            apart = fixed(jnp.where(counts, reference, 0)) - log_probs
            losses = losses + self.divergence * (jnp.expm1(apart) - apart)
        return self._averaged(losses, weights, longest)

    def _averaged(self, losses, weights, longest):
        answers, width = losses.shape
        if self.average is Average.LENGTH:
            return jnp.sum(weights * losses) / max(1, answers * (longest or width))
        if self.average is Average.TOKENS:
            return jnp.sum(weights * losses) / _or_one(jnp.sum(weights))
        each = jnp.sum(weights * losses, -1) / _or_one(jnp.sum(weights, -1))
        return jnp.sum(each) / max(1, answers)


PPO = Clipped()
GRPO = Clipped(divergence=0.04, average=Average.ANSWERS)
DAPO = Clipped(high=0.28, average=Average.TOKENS)
DR_GRPO = Clipped(average=Average.LENGTH)


def group_advantages(rewards: Float[Array, " B"], group: int, scale: Scale = Scale.DEVIATION) -> Float[Array, " B"]:
    """Returns each reward less its group's mean, over its group's deviation; a group of equal rewards gives zeros.

    Args:
        group: how many answers in a row are to one prompt.
        scale: DEVIATION as in GRPO and DAPO; NONE as in Dr. GRPO.

    Raises:
        ShapeError: the rewards are no whole groups.
    """
    if group < 1 or rewards.shape[0] % group:
        raise ShapeError(
            f"{rewards.shape[0]} rewards are no whole groups of {group}",
            where="group",
            remedy="Pass the rewards of all answers to each prompt.",
        )
    cut = rewards.reshape(-1, group)
    centred = cut - jnp.mean(cut, -1, keepdims=True)
    if scale is Scale.DEVIATION:
        centred = centred / (jnp.std(cut, -1, keepdims=True, ddof=min(1, group - 1)) + 1e-4)
    return centred.reshape(-1)


def linear_policy_loss(
    x: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    old: Float[Array, "B T"],
    advantages: Float[Array, "#B #T"],
    weights: Float[Array, "B T"],
    *,
    objective: Clipped,
    temperature: float = 1.0,
    reference: Float[Array, "B T"] | None = None,
    longest: int | None = None,
    precision: Precision = FLOAT32,
    implementation: str | None = None,
) -> Float[Array, ""]:
    """Returns the objective's loss of softmax(x . head / temperature) on the sampled tokens.

    Args:
        temperature: at which the answers were sampled.

    Raises:
        ConfigError: a divergence without a reference, a reference that nothing looks at, no temperature.
        ShapeError: the widths of x and head disagree.
        Unsupported: an implementation was named that does not exist or cannot honour the precision.

    Cost: 2*B*T*D*V FLOPs, four times that with the gradient; at most one block of logits is held.
    """
    if temperature <= 0:
        raise ConfigError(f"{temperature} is no temperature", where="temperature", remedy="Use a number above 0.")
    counts = weights != 0
    seen, real = jnp.where(counts[..., None], x, 0), jnp.where(counts, targets, 0)
    seen = seen if temperature == 1 else seen / temperature
    log_probs = linear_log_probs(seen, head, real, precision=precision, implementation=implementation)
    return objective(log_probs, old, advantages, weights, reference=reference, longest=longest)


def _or_one(count: Float[Array, "*N"]) -> Float[Array, "*N"]:
    return jnp.where(count == 0, 1, count)
