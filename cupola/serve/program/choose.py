"""Which of some texts a model finds likeliest, from the log-probabilities of their tokens.

Not here: where those come from (`local.py`, `endpoint.py`).
Source: SGLang's three ways of choosing; the first is the one of arXiv 2312.07104, section 2.
"""

import dataclasses
import enum
from collections.abc import Sequence


class Method(enum.Enum):
    """How log-probabilities of texts of different lengths are compared."""

    TOKEN_LENGTH_NORMALIZED = "token_length_normalized"
    """The largest mean over a text's tokens."""
    GREEDY_TOKEN = "greedy_token"
    """Token by token, only those texts stay whose next token is likeliest; a text that has ended
    goes on at its mean."""
    UNCONDITIONAL_NORMALIZED = "unconditional_normalized"
    """The largest mean of what the prompt adds: log p(token | prompt) - log p(token | nothing)."""


@dataclasses.dataclass(frozen=True)
class Score:
    """What a model says about one text after a prompt.

    Args:
        log_probs: of each of its tokens, given the prompt and those before, in nats.
        unconditional: the same without the prompt, where they were asked for.
        tokens: ids of its tokens, where they are known.
    """

    log_probs: tuple[float, ...]
    unconditional: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        """Log-probability of a token of it, on average."""
        return sum(self.log_probs) / len(self.log_probs)


def choose(scores: Sequence[Score], method: Method) -> int:
    """Returns the index of the likeliest text; the first of equal ones.

    Args:
        scores: one of each text, with at least one token each.
        method: how they are compared.
    """
    if method is Method.GREEDY_TOKEN:
        return _greedy(scores)
    if method is Method.UNCONDITIONAL_NORMALIZED:
        values = [score.mean - sum(score.unconditional) / len(score.unconditional) for score in scores]
    else:
        values = [score.mean for score in scores]
    return values.index(max(values))


def _greedy(scores: Sequence[Score]) -> int:
    left = list(range(len(scores)))
    for place in range(max(len(score.log_probs) for score in scores)):
        here = {i: scores[i].log_probs[place] if place < len(scores[i].log_probs) else scores[i].mean for i in left}
        left = [i for i in left if here[i] == max(here.values())]
        if len(left) == 1:
            break
    return left[0]
