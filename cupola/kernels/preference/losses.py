"""Preference losses as the equations, over answers' log-probabilities; each returns one number a pair, or an answer.

w and l are the preferred and the rejected answer, log p the model's, log r the reference model's
log-probability of a whole answer (no gradient), |w| its tokens, S the logistic function.
Not here: the mean over pairs. Invariant: nothing flows to the reference model.
Source: Rafailov et al. 2023, arXiv 2305.18290, equation 7 (DPO); Azar et al. 2023, arXiv 2310.12036,
equation 17 (IPO); Zhao et al. 2023, arXiv 2305.10425 (hinge); Chowdhury et al. 2024, arXiv 2403.00409,
equation 12 (robust); D'Oosterlinck et al. 2024, arXiv 2408.06266, section 4 (APO); Wu et al. 2024, arXiv
2405.00675, equation 4.6 (SPPO); Chen et al. 2024, arXiv 2402.05369, equation 11 (NCA); Hong et al. 2024, arXiv
2403.07691, equations 6 and 7 (ORPO); Meng et al. 2024, arXiv 2405.14734, equation 6 (SimPO); Xu et al. 2024,
arXiv 2401.08417, equations 3 to 5 (CPO); Ethayarajh et al. 2024, arXiv 2402.01306, equation 8 (KTO).
"""

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cupola.config.value import Value
from cupola.core.errors import ConfigError
from cupola.kernels.preference.answers import Answers

log_sigmoid, sigmoid = jax.nn.log_sigmoid, jax.nn.sigmoid
fixed = jax.lax.stop_gradient


class Form(enum.Enum):
    """What DPO makes of a = beta (log p(w) - log r(w)), b = the same of l, and the margin m = a - b."""

    SIGMOID = "sigmoid"
    """-(1 - s) log S(m) - s log S(-m), with s the share of pairs whose label is wrong (conservative DPO)."""
    ROBUST = "robust"
    """(-(1 - s) log S(m) + s log S(-m)) / (1 - 2 s): unbiased where a share s of the labels is wrong."""
    HINGE = "hinge"
    """max(0, 1 - m)."""
    APO_ZERO = "apo_zero"
    """1 - S(a) + S(b): preferred answers up, rejected ones down."""
    APO_DOWN = "apo_down"
    """S(a) + 1 - S(m): both down, the rejected one further."""
    SPPO = "sppo"
    """(a - 1/2)^2 + (b + 1/2)^2 in units of beta: ((a/beta) - 1/(2 beta))^2 + ((b/beta) + 1/(2 beta))^2."""
    NCA = "nca"
    """-log S(a) - log S(-a) / 2 - log S(-b) / 2."""


class DPO(Value):
    """Direct preference optimization.

    Args:
        beta: how strongly the reference model holds.
        wrong: share of pairs whose label is wrong; SIGMOID and ROBUST alone take one.
    """

    beta: float = 0.1
    form: Form = Form.SIGMOID
    wrong: float = 0.0

    def check(self) -> None:
        _positive(self.beta, "beta")
        if not 0 <= self.wrong < 0.5:
            raise ConfigError(
                f"{self.wrong} of the labels cannot be wrong", where="wrong", remedy="Use a share from 0 to below 0.5."
            )
        if self.wrong and self.form not in (Form.SIGMOID, Form.ROBUST):
            raise ConfigError(
                f"the form {self.form.value} takes no share of wrong labels",
                where="wrong",
                remedy="Leave it at 0, or use the form SIGMOID or ROBUST.",
            )

    def __call__(
        self,
        preferred: Answers,
        rejected: Answers,
        reference_preferred: Float[Array, " B"],
        reference_rejected: Float[Array, " B"],
    ) -> Float[Array, " B"]:
        """Returns the loss of each pair; the reference's are sums, as `Answers.sums`."""
        a = self.beta * (preferred.sums - fixed(reference_preferred))
        b = self.beta * (rejected.sums - fixed(reference_rejected))
        m, s = a - b, self.wrong
        half = 1 / (2 * self.beta)
        match self.form:
            case Form.SIGMOID:
                return -(1 - s) * log_sigmoid(m) - s * log_sigmoid(-m)
            case Form.ROBUST:
                return (-(1 - s) * log_sigmoid(m) + s * log_sigmoid(-m)) / (1 - 2 * s)
            case Form.HINGE:
                return jnp.maximum(0, 1 - m)
            case Form.APO_ZERO:
                return sigmoid(-a) + sigmoid(b)
            case Form.APO_DOWN:
                return sigmoid(a) + sigmoid(-m)
            case Form.SPPO:
                return (a / self.beta - half) ** 2 + (b / self.beta + half) ** 2
            case Form.NCA:
                return -log_sigmoid(a) - (log_sigmoid(-a) + log_sigmoid(-b)) / 2


class IPO(Value):
    """Identity preference optimization: (h - 1/(2 beta))^2, h = log p(w)/r(w) - log p(l)/r(l), of means over tokens.

    Means are what makes answers of unlike lengths comparable; the paper's sums are one token's means.
    """

    beta: float = 0.1

    def check(self) -> None:
        _positive(self.beta, "beta")

    def __call__(
        self, preferred: Answers, rejected: Answers, reference_preferred: Answers, reference_rejected: Answers
    ) -> Float[Array, " B"]:
        """Returns the loss of each pair."""
        gain = preferred.means - fixed(reference_preferred.means)
        loss = rejected.means - fixed(reference_rejected.means)
        return (gain - loss - 1 / (2 * self.beta)) ** 2


class ORPO(Value):
    """Odds ratio: -log p(w)/|w| - ratio log S(log odds(w) - log odds(l)), odds = p/(1-p) of means over tokens."""

    ratio: float = 0.1

    def check(self) -> None:
        _positive(self.ratio, "ratio")

    def __call__(self, preferred: Answers, rejected: Answers) -> Float[Array, " B"]:
        """Returns the loss of each pair."""
        margin = _log_odds(preferred.means) - _log_odds(rejected.means)
        return -preferred.means - self.ratio * log_sigmoid(margin)


class SimPO(Value):
    """Without a reference model: -log S(beta log p(w)/|w| - beta log p(l)/|l| - margin)."""

    beta: float = 2.0
    margin: float = 1.0

    def check(self) -> None:
        _positive(self.beta, "beta")

    def __call__(self, preferred: Answers, rejected: Answers) -> Float[Array, " B"]:
        """Returns the loss of each pair."""
        return -log_sigmoid(self.beta * (preferred.means - rejected.means) - self.margin)


class CPO(Value):
    """Contrastive: -log S(beta (log p(w) - log p(l))) - likelihood log p(w)/|w|."""

    beta: float = 0.1
    likelihood: float = 1.0

    def check(self) -> None:
        _positive(self.beta, "beta")

    def __call__(self, preferred: Answers, rejected: Answers) -> Float[Array, " B"]:
        """Returns the loss of each pair."""
        return -log_sigmoid(self.beta * (preferred.sums - rejected.sums)) - self.likelihood * preferred.means


class KTO(Value):
    """From single answers, each desirable or not: desirable (1 - S(beta (h - z))), undesirable (1 - S(beta (z - h))).

    h = log p - log r of the answer; z, the reference point, is the divergence of the model from the reference
    on answers that do not belong to their prompts, no less than 0, and gets no gradient.
    """

    beta: float = 0.1
    desirable: float = 1.0
    undesirable: float = 1.0

    def check(self) -> None:
        _positive(self.beta, "beta")

    def __call__(
        self,
        answers: Answers,
        reference: Float[Array, " B"],
        wanted: Float[Array, " B"],
        divergence: Float[Array, ""],
    ) -> Float[Array, " B"]:
        """Returns the loss of each answer.

        Args:
            reference: sums under the reference model.
            wanted: 1 for a desirable answer, 0 for another.
            divergence: the mean of log p - log r over mismatched answers.
        """
        gain = self.beta * (answers.sums - fixed(reference) - jnp.maximum(0, fixed(divergence)))
        return jnp.where(wanted != 0, self.desirable * sigmoid(-gain), self.undesirable * sigmoid(gain))


def _log_odds(log_p: Float[Array, " B"]) -> Float[Array, " B"]:
    """Returns log(p / (1 - p)); of p = 1, where the odds are infinite, that of the next smaller number."""
    below = jnp.minimum(log_p, -jnp.finfo(log_p.dtype).eps)
    return below - jnp.log(-jnp.expm1(below))


def _positive(number: float, where: str) -> None:
    if number <= 0:
        raise ConfigError(f"{number} is not positive", where=where, remedy="Use a number above 0, such as 0.1.")
