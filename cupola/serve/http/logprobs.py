"""Log-probabilities of tokens in the two forms of the OpenAI API.

Not here: where they come from. Numbers below -9999 are written as -9999, since JSON has no infinity.
"""

from collections.abc import Sequence
from typing import Any

from cupola.data.tokenizer import Tokenizer
from cupola.serve.request import Token

_LOWEST = -9999.0


def finite(log_prob: float | None) -> float:
    """Returns the log-probability as JSON can hold it."""
    return _LOWEST if log_prob is None else max(log_prob, _LOWEST)


def chat_logprobs(tokenizer: Tokenizer, tokens: Sequence[Token]) -> dict[str, Any]:
    """Returns {"content": [{token, bytes, logprob, top_logprobs}], "refusal": None}."""
    content = [
        {
            **_one(tokenizer, token.id, token.log_prob),
            "top_logprobs": [_one(tokenizer, id, log_prob) for id, log_prob in token.top],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _one(tokenizer: Tokenizer, id: int, log_prob: float | None) -> dict[str, Any]:
    data = tokenizer.token(id), list(tokenizer.token_bytes(id))
    return {"token": data[0], "bytes": data[1], "logprob": finite(log_prob)}


def token_name(tokenizer: Tokenizer, id: int) -> str:
    """Returns the text of a token; a part of a character as "bytes:\\xe2", so that two differ."""
    held = tokenizer.token_bytes(id)
    try:
        return held.decode() or tokenizer.token(id)
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in held)


class OldLogprobs:
    """The log-probabilities of a text completion, token by token: tokens, token_logprobs, top_logprobs, text_offset.

    Args:
        tokenizer: of the model.
        alternatives: whether top_logprobs were asked for.
    """

    def __init__(self, tokenizer: Tokenizer, alternatives: int):
        self._tokenizer, self._alternatives = tokenizer, alternatives
        self._stream = tokenizer.stream()
        self._offset = 0

    def skip(self, characters: int) -> None:
        """Counts text that stands before the tokens to come."""
        self._offset += characters

    def write(self, tokens: Sequence[Token]) -> dict[str, Any]:
        """Returns what these tokens add."""
        offsets = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(self._stream.feed(token.id))
        return {
            "tokens": [token_name(self._tokenizer, token.id) for token in tokens],
            "token_logprobs": [None if token.log_prob is None else finite(token.log_prob) for token in tokens],
            "top_logprobs": [self._top(token) for token in tokens] if self._alternatives else None,
            "text_offset": offsets,
        }

    def _top(self, token: Token) -> dict[str, float] | None:
        if token.log_prob is None:
            return None
        top: dict[str, float] = {}
        # Tokens of one name: the likeliest comes first and stays.
        for id, log_prob in (*token.top, (token.id, token.log_prob)):
            top.setdefault(token_name(self._tokenizer, id), finite(log_prob))
        return top
