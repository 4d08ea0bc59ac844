"""How far a student's distribution q is from a teacher's p.

Source: Hinton et al. 2015 (temperature); Agarwal et al. 2024, arXiv 2306.13649, section 2 (JSD(beta), with
p = P, q = Q); Wen et al. 2023, arXiv 2307.15190, section 2.2 (total variation).
"""

import enum

from cupola.config.value import Value
from cupola.core.errors import ConfigError


class Kind(enum.Enum):
    """A divergence, with m = beta p + (1 - beta) q."""

    KL = "kl"
    """sum p (log p - log q): the student covers all that the teacher says."""
    REVERSE_KL = "reverse_kl"
    """sum q (log q - log p): the student says nothing that the teacher does not."""
    JSD = "jsd"
    """beta KL(p, m) + (1 - beta) KL(q, m)."""
    TVD = "tvd"
    """sum |p - q| / 2."""


class Measure(Value):
    """A divergence of softmax(logits / temperature). It is not multiplied by temperature^2.

    Args:
        beta: of JSD, between 0 and 1, both excluded; the other kinds do not look at it.
        temperature: of both distributions.
    """

    kind: Kind = Kind.KL
    beta: float = 0.5
    temperature: float = 1.0

    def check(self) -> None:
        if not 0 < self.beta < 1:
            raise ConfigError(
                f"{self.beta} mixes nothing",
                where="beta",
                remedy="Use a number between 0 and 1, or the kinds KL and REVERSE_KL, which are the limits.",
            )
        if self.temperature <= 0:
            raise ConfigError(f"{self.temperature} is no temperature", where="temperature", remedy="Use a number > 0.")
