"""Dimension letters: each means one thing everywhere.

`D` is the residual width in a `Param`, in a signature (`Float[Array, "B T D"]`) and in a partition
rule alike. Invariant: a `Param` has one known letter per dimension.
"""

from cupola.config.suggest import did_you_mean
from cupola.core.errors import ShapeError

DIMS = {
    "B": "batch",
    "T": "query positions",
    "S": "key positions",
    "D": "residual width",
    "H": "query heads",
    "K": "key and value heads",
    "C": "width of a head",
    "F": "feed-forward width",
    "E": "experts",
    "V": "vocabulary",
    "P": "pages",
    "Z": "page size",
    "L": "layers",
    "M": "mel bins",
    "W": "taps of a convolution",
}


def letters(dims: str, rank: int) -> tuple[str, ...]:
    """Splits "D F" into ("D", "F") and checks each letter and their number.

    Raises:
        ShapeError: an unknown letter, or not one letter per dimension.
    """
    names = tuple(dims.split())
    for name in names:
        if name not in DIMS:
            table = ", ".join(f"{k} {v}" for k, v in DIMS.items())
            raise ShapeError(
                f"{name!r} in {dims!r} is no dimension letter", remedy=f"Letters: {table}. {did_you_mean(name, DIMS)}"
            )
    if len(names) != rank:
        raise ShapeError(
            f"{dims!r} names {len(names)} dimensions of a parameter that has {rank}",
            remedy="Write one letter per dimension, with spaces between.",
        )
    return names
