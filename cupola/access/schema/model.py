"""What a schema says, whatever language it was written in.

Not here: reading it (`zed/`, `fga/`), whether it holds together (`check.py`), answering questions (`engine/`).
Invariant: frozen and hashable; equal texts give equal models, so that a model is a key for what is compiled from it.
Source: Pang et al. 2019, "Zanzibar", section 2.3 (userset rewrites); our `Computed` and `Arrow` are its
computed_userset and tuple_to_userset.
"""

import dataclasses
import enum
import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType


class Language(enum.Enum):
    """In which a schema was written."""

    ZED = "zed"
    FGA = "fga"


@dataclasses.dataclass(frozen=True)
class This:
    """The subjects of the relation's own relationships."""


@dataclasses.dataclass(frozen=True)
class Computed:
    """The subjects of another relation or permission of the same object."""

    name: str


class Quantifier(enum.Enum):
    """Over which of the objects that an arrow leads to its right side must hold."""

    ANY = "any"
    ALL = "all"


@dataclasses.dataclass(frozen=True)
class Arrow:
    """The subjects that `computed` has on the objects that stand in relation `tupleset`.

    Objects whose type lacks `computed` count as having nobody in it.
    """

    tupleset: str
    computed: str
    quantifier: Quantifier = Quantifier.ANY


@dataclasses.dataclass(frozen=True)
class Nil:
    """Nobody."""


@dataclasses.dataclass(frozen=True)
class Itself:
    """The object itself, as a subject (`self`)."""


@dataclasses.dataclass(frozen=True)
class Union:
    """Whoever is in one of them."""

    operands: tuple["Expression", ...]


@dataclasses.dataclass(frozen=True)
class Intersection:
    """Whoever is in all of them."""

    operands: tuple["Expression", ...]


@dataclasses.dataclass(frozen=True)
class Exclusion:
    """Whoever is in the one and not in the other."""

    base: "Expression"
    subtracted: "Expression"


Expression = This | Computed | Arrow | Nil | Itself | Union | Intersection | Exclusion


@dataclasses.dataclass(frozen=True)
class Allowed:
    """A kind of subject that a relation may have.

    Args:
        type: of the subject.
        relation: "" for objects of the type themselves.
        wildcard: whether it is `type:*`, all of the type, and no single one.
        caveat: name of the caveat that a relationship of this kind must have; "": it has none.
        expires: whether it must have an expiration.
    """

    type: str
    relation: str = ""
    wildcard: bool = False
    caveat: str = ""
    expires: bool = False

    def __str__(self) -> str:
        text = f"{self.type}:*" if self.wildcard else f"{self.type}#{self.relation}" if self.relation else self.type
        traits = " and ".join([*([self.caveat] if self.caveat else []), *(["expiration"] if self.expires else [])])
        return f"{text} with {traits}" if traits else text


@dataclasses.dataclass(frozen=True)
class Relation:
    """A relation or a permission of a type.

    Args:
        name: of it.
        rewrite: who has it. A relation of `.zed` is `This()`; an OpenFGA relation may be any expression.
        allowed: subjects that may be written; none for a permission.
        doc: the comment above it, without its marks.
        line: where it was declared, from 1; not compared.
        column: likewise.
    """

    name: str
    rewrite: Expression
    allowed: tuple[Allowed, ...] = ()
    doc: str = ""
    line: int = dataclasses.field(default=0, compare=False)
    column: int = dataclasses.field(default=0, compare=False)

    @property
    def writable(self) -> bool:
        """Whether relationships of it can be written: it is a relation and no mere permission."""
        return bool(self.allowed) or isinstance(self.rewrite, This)


@dataclasses.dataclass(frozen=True)
class Definition:
    """A type of objects.

    Args:
        relations: relations and permissions, in the order of the text; names are unique.
    """

    name: str
    relations: tuple[Relation, ...] = ()
    doc: str = ""
    line: int = dataclasses.field(default=0, compare=False)
    column: int = dataclasses.field(default=0, compare=False)

    def __iter__(self) -> Iterator[Relation]:
        return iter(self.relations)

    def get(self, name: str) -> Relation | None:
        """Returns the relation or permission of this name."""
        return next((relation for relation in self.relations if relation.name == name), None)


@dataclasses.dataclass(frozen=True)
class Caveat:
    """A condition in CEL.

    Args:
        parameters: (name, type) in the order of the text; types as the language writes them, such as `list<string>`.
        expression: the CEL text.
    """

    name: str
    parameters: tuple[tuple[str, str], ...]
    expression: str
    doc: str = ""
    line: int = dataclasses.field(default=0, compare=False)
    column: int = dataclasses.field(default=0, compare=False)


@dataclasses.dataclass(frozen=True)
class Schema:
    """All types and caveats.

    Args:
        definitions: in the order of the text; names are unique.
        caveats: likewise.
        language: of the text.
        version: of the language, such as "1.1" of OpenFGA; "" where it has none.
        uses: what the text switches on (`use expiration`).
    """

    definitions: tuple[Definition, ...] = ()
    caveats: tuple[Caveat, ...] = ()
    language: Language = Language.ZED
    version: str = ""
    uses: tuple[str, ...] = ()

    @functools.cached_property
    def types(self) -> Mapping[str, Definition]:
        """Definitions by name."""
        return MappingProxyType({definition.name: definition for definition in self.definitions})

    @functools.cached_property
    def conditions(self) -> Mapping[str, Caveat]:
        """Caveats by name."""
        return MappingProxyType({caveat.name: caveat for caveat in self.caveats})

    def relation(self, type: str, name: str) -> Relation | None:
        """Returns a relation or permission of a type; None where there is no such type or name."""
        definition = self.types.get(type)
        return None if definition is None else definition.get(name)
