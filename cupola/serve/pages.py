"""The pool of pages that keys and values are kept in: which are free, and how many hold each of the others.

Not here: what stands in a page (`layers/kv.py`), which pages are worth keeping (`radix.py`).
Invariant: a page is free exactly when nobody holds it; page 0 belongs to nobody, for padded rows write there.
"""

from collections.abc import Iterable


class Pages:
    """Pages 1 to count - 1, handed out and taken back.

    Steps run on the device strictly in order. A page that is released while a step in flight still
    writes to it may thus be taken at once: only a later step can write to it for its new holder.

    Args:
        count: of pages in all, page 0 among them.
        size: tokens in a page.
    """

    def __init__(self, count: int, size: int):
        self.count, self.size = count, size
        self._free = list(range(count - 1, 0, -1))
        self._holders = [0] * count

    @property
    def available(self) -> int:
        """How many pages are free."""
        return len(self._free)

    def holders(self, page: int) -> int:
        """Returns how many hold a page."""
        return self._holders[page]

    def needed(self, tokens: int) -> int:
        """Returns how many pages so many tokens fill or begin."""
        return -(-tokens // self.size)

    def take(self, number: int) -> list[int]:
        """Returns so many free pages, each with one holder.

        Raises:
            ValueError: there are fewer; the caller makes room first.
        """
        if number > len(self._free):
            raise ValueError(f"{number} pages are asked for, {len(self._free)} are free")
        if number <= 0:
            return []
        taken = self._free[-number:]
        del self._free[-number:]
        for page in taken:
            self._holders[page] = 1
        return taken

    def hold(self, pages: Iterable[int]) -> None:
        """Counts one holder more for each of the pages, none of which is free."""
        for page in pages:
            self._holders[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """Counts one holder less for each of the pages; those without any are free."""
        for page in pages:
            self._holders[page] -= 1
            if not self._holders[page]:
                self._free.append(page)

    def check(self, held: dict[int, int]) -> None:
        """Audits the pool against what its holders say.

        Args:
            held: how many hold each page; those left out are free.

        Raises:
            RuntimeError: a page is lost, free and held at once, or counted wrongly.
        """
        if self._holders != [held.get(page, 0) for page in range(self.count)]:
            wrong = {p: (n, held.get(p, 0)) for p, n in enumerate(self._holders) if n != held.get(p, 0)}
            raise RuntimeError(f"holders of pages (counted, in truth): {wrong}")
        if sorted(self._free) != [page for page in range(1, self.count) if not self._holders[page]]:
            raise RuntimeError(f"the free list {sorted(self._free)} is not that of pages without a holder")
