"""Modules whose parts follow from a few numbers of their own, so that one number sets a width everywhere."""

from collections.abc import Iterator

from cupola.config.value import Value
from cupola.core.module import Module, Tree


class Assembled(Module):
    """A module whose parts are no fields: `parts` derives each from the fields, its widths and all."""

    def parts(self) -> dict[str, Module]:
        """Returns the parts by name, whole."""
        raise NotImplementedError

    def specs(self) -> Tree:
        return super().specs() | {name: part.specs() for name, part in self.parts().items()}

    def children(self) -> Iterator[tuple[str, Value]]:
        yield from super().children()
        yield from self.parts().items()
