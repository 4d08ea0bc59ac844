"""What a sequence says: tokens into text, up to where it ends.

Not here: drawing (`sample.py`), what clients get on the wire (`http/`).
Invariant: text that was given out is never taken back, and holds nothing of a stop text that came.
"""

import dataclasses

from cupola.data.tokenizer import Tokenizer
from cupola.serve.request import Piece, Reason, Request, Token


@dataclasses.dataclass(frozen=True)
class Ending:
    """Why a sequence has ended, and by which of its stop texts, if by one."""

    reason: Reason
    stop: str | None = None


class Output:
    """The text of one request as its tokens come.

    Args:
        request: says what ends it.
        tokenizer: of the model.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer):
        self._request, self._stream = request, tokenizer.stream()
        self._held = ""
        self._longest = max(map(len, request.stop), default=0)
        self._left = request.limit_tokens
        self._silent = request.top_logprobs is None
        self.ending: Ending | None = None

    def feed(self, tokens: list[Token], *, complete: bool = False) -> Piece:
        """Returns what these tokens add; `ending` is set where they end it, and those after are left out.

        Args:
            complete: whether a grammar allows nothing after them.
        """
        taken, texts = [], []
        for token in tokens:
            taken.append(Token(token.id) if self._silent else token)
            self._left -= 1
            if token.id in self._request.stop_tokens:
                self.ending = Ending(Reason.STOP)
            else:
                texts.append(self._text(self._stream.feed(token.id)))
            if self.ending is None and self._left == 0:
                self.ending = Ending(Reason.LENGTH)
            if self.ending is not None:
                break
        if self.ending is None and complete:
            self.ending = Ending(Reason.STOP)
        if self.ending is not None and self.ending.stop is None:
            texts.append(self._text(self._stream.flush(), last=True))
        return Piece(text="".join(texts), tokens=tuple(taken))

    def _text(self, new: str, *, last: bool = False) -> str:
        """Returns what is certain now to be no part of a stop text; finds the first that came."""
        self._held += new
        if not self._longest:
            certain, self._held = self._held, ""
            return certain
        found = [(at + len(stop), at, stop) for stop in self._request.stop if (at := self._held.find(stop)) >= 0]
        if found:
            # The one that was whole first, however many tokens came at a time.
            _, at, stop = min(found)
            certain, self._held = self._held[:at], ""
            self.ending = Ending(Reason.STOP, stop)
            return certain
        keep = 0 if last else self._begun()
        certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return certain

    def _begun(self) -> int:
        """Returns the length of the longest end of the held text that a stop text begins with."""
        for size in range(min(len(self._held), self._longest - 1), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._request.stop):
                return size
        return 0
