"""Mixtures: several sources, each with its share of the rows.

Invariant: in every prefix of a mixture, each part has had its share of the rows, give or take one
row per part; and any row can be had without the rows before it.
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from cupola.config.value import Value
from cupola.core.errors import ConfigError, DataError
from cupola.data.pack import Packed, Row
from cupola.data.sources import Document, Source
from cupola.data.tokenizer import Tokenizer
from cupola.data.tokens import TokenCorpus


class Part(Value):
    """A source and its weight in a mixture.

    Args:
        source: where the documents come from.
        weight: its share of the rows, relative to the other parts' weights.
    """

    source: Source
    weight: float = 1.0

    def check(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ConfigError(
                f"{self.weight} is no share", where="weight", remedy="Use a number above 0, or leave the part out."
            )


class Mixture(Source):
    """Several sources to train on together; as a source, the documents of all parts in turn.

    Args:
        parts: the sources with their weights. Which part gives a row never depends on their sizes: a
            small part is simply repeated more often.

    Example:
        Mixture(parts=(Part(source=PythonLibrary(), weight=3.0), Part(source=TextFiles(path="notes"))))
    """

    parts: tuple[Part, ...]

    def check(self) -> None:
        if not self.parts:
            raise ConfigError("a mixture of nothing", where="parts", remedy="Give at least one Part(source=...).")

    def documents(self) -> Iterator[Document]:
        if len(self.parts) == 1:
            yield from self.parts[0].source.documents()
            return
        digits = len(str(len(self.parts) - 1))
        for number, part in enumerate(self.parts):
            for document in part.source.documents():
                yield Document(f"{number:0{digits}d}/{document.name}", document.text)

    def encode(self, tokenizer: Tokenizer) -> tuple[TokenCorpus, ...]:
        """Returns the corpus of each part.

        Raises:
            DataError: a part has no document, or cannot be read; the message names the part.
        """
        corpora = []
        for number, part in enumerate(self.parts):
            try:
                corpora.append(TokenCorpus.encode(part.source, tokenizer))
            except DataError as error:
                raise error.under(f"parts.{number}.source") from None
        return tuple(corpora)

    def pack(self, corpora: Sequence[TokenCorpus], *, length_tokens: int, seed: int = 0) -> "Mixed":
        """Returns the mixed rows of the parts' corpora, as `encode` gave them.

        Raises:
            DataError: a corpus is smaller than one row, or there is not one per part.
        """
        if len(corpora) != len(self.parts):
            raise DataError(
                f"{len(corpora)} corpora for {len(self.parts)} parts",
                where="corpora",
                remedy="Give one corpus per part, in the order of the parts.",
            )
        packed = [Packed(corpus, length_tokens=length_tokens, seed=seed) for corpus in corpora]
        return Mixed(packed, [part.weight for part in self.parts])


class Mixed:
    """Endless rows of several packed corpora, interleaved by weight.

    Grain's own `mix` rounds weights to hundredths of the smallest and stops with the shortest part;
    here weights are exact and parts go on into their next epochs.

    Args:
        packed: the parts' rows, all of one length and seed.
        weights: their shares.
    """

    def __init__(self, packed: Sequence[Packed], weights: Sequence[float]):
        self.parts = tuple(zip(weights, packed, strict=True))
        self.length_tokens, self.seed = packed[0].length_tokens, packed[0].seed
        # str, because 0.1 in decimal is what was meant, and its binary neighbour would break ties.
        shares = [Fraction(str(weight)) for weight in weights]
        scale = math.lcm(*(share.denominator for share in shares))
        self._shares = [int(share * scale) for share in shares]

    def __getitem__(self, index: int) -> Row:
        part, row = self.locate(index)
        return self.parts[part][1][row]

    def locate(self, index: int) -> tuple[int, int]:
        """Returns which part gives row `index`, and which of that part's rows it is.

        Of the first n rows, the first part gets its share rounded up; what is left is shared among
        the others in the same way. The row goes to the part that then gains one.
        """
        before, after, rest = index, index + 1, sum(self._shares)
        *others, _ = self._shares
        for part, share in enumerate(others):
            left_before, left_after = before * (rest - share) // rest, after * (rest - share) // rest
            if left_before == left_after:
                return part, before - left_before
            before, after, rest = left_before, left_after, rest - share
        return len(others), before
