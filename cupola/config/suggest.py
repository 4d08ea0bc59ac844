"""Did you mean: the nearest known names to one that is not known."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "Did you mean 'x'?" for the nearest names, in any case, or the whole list when none is near."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if not near:
        folded = {n.casefold(): n for n in names}
        near = [folded[n] for n in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)]
    if near:
        return f"Did you mean {' or '.join(repr(n) for n in near)}?"
    return f"Known here: {', '.join(names)}." if names else "Nothing is known here."
