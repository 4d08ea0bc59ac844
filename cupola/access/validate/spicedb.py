"""SpiceDB's validation files.

Not here: whether what they claim holds (`run.py`).
Source: the format of SpiceDB's playground and of `zed validate`: `schema` or `schemaFile`, `relationships` or
`relationshipsFile`, `assertions`, and `validation`, which names all who have a permission, and by which relations.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from cupola.access.decision import Verdict
from cupola.access.errors import AccessError
from cupola.access.relation import Object, Relationship, Subject
from cupola.access.schema.model import Language
from cupola.access.validate.document import Field
from cupola.access.validate.place import FileError, Place, beside, read_text
from cupola.access.validate.report import Kind
from cupola.access.validate.schemas import named_schema, written_schema
from cupola.access.validate.suite import Check, Claim, Expected, Fact, Holders, SchemaText, Stage, Suite

KEYS = ("schema", "schemaFile", "relationships", "relationshipsFile", "assertions", "validation")
VERDICTS = {"assertTrue": Verdict.YES, "assertFalse": Verdict.NO, "assertCaveated": Verdict.CONDITIONAL}

_COMMENT = "//"
_EXPECTED = re.compile(r"\s*\[(?P<subject>.*)\]\s+is\s+(?P<sources><[^<>]+>(?:/<[^<>]+>)*)\s*")
_SUBJECT = re.compile(r"(?P<name>[^\]\s]+?)(?P<conditional>\[\.\.\.\])?(?:\s+-\s+\{(?P<excluded>[^}]+)\})?")

T = TypeVar("T")


def read_validation(path: Path, document: Field) -> Suite:
    """Returns what a validation file says.

    Raises:
        FileError: it cannot be read.
    """
    fields = document.fields(*KEYS)
    facts = _facts(path, fields["relationships"], fields["relationshipsFile"])
    claims = [*_assertions(fields["assertions"]), *_holders(fields["validation"])]
    return Suite("", (Stage(_schema(path, fields["schema"], fields["schemaFile"]), facts, tuple(claims)),))


def read_relationships(lines: list[tuple[str, Place]]) -> tuple[Fact, ...]:
    """Returns the relationships of lines; empty ones and those that begin with // do not count.

    Raises:
        FileError: a line is no relationship, or one is there twice.
    """
    found: dict[object, Fact] = {}
    for line, place in lines:
        text = line.strip()
        if not text or text.startswith(_COMMENT):
            continue
        try:
            fact = Fact(Relationship.parse(text), place)
        except AccessError as error:
            raise FileError(error.problem, place, remedy=error.remedy) from None
        before = found.setdefault(fact.relationship.key, fact)
        if before is not fact:
            raise FileError("the relationship is there twice", place, remedy=f"It stands at {before.place} already.")
    return tuple(found.values())


def _schema(path: Path, written: Field, named: Field) -> SchemaText | None:
    _one_of(written, named, "schema", "schemaFile")
    if named:
        return named_schema(path, named, Language.ZED)
    return written_schema(written, Language.ZED) if written else None


def _facts(path: Path, written: Field, named: Field) -> tuple[Fact, ...]:
    _one_of(written, named, "relationships", "relationshipsFile")
    if named:
        other = beside(path, named.text(), named.place)
        text = read_text(other, named.place)
        return read_relationships([(line, Place(str(other), n, 1)) for n, line in enumerate(text.split("\n"), start=1)])
    return read_relationships(written.lines() if written else [])


def _one_of(written: Field, named: Field, name: str, other: str) -> None:
    if written and named:
        raise named.error(f"both {name} and {other} are given", "Leave one of them out.")


def _assertions(field: Field) -> Iterator[Claim]:
    for name, listed in field.fields(*VERDICTS).items():
        for item in listed.items():
            text, _, context = item.text().strip().partition(" with ")
            asked = _parse(Relationship.parse, text.strip(), item)
            if asked.caveat is not None or asked.expires_seconds is not None:
                raise item.error("an assertion has no caveat or expiration", 'Write RELATIONSHIP with {"name": value}.')
            yield Check(
                kind=Kind.ASSERTION,
                place=item.place,
                context=_context(context, item),
                object=str(asked.object),
                relation=asked.relation,
                user=str(asked.subject),
                verdict=VERDICTS[name],
            )


def _context(text: str, item: Field) -> dict[str, object]:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise item.error(f"what follows `with` is no JSON: {error}", 'Write with {"name": value}.') from None
    if not isinstance(found, dict):
        raise item.error("what follows `with` is no JSON object", 'Write with {"name": value}.')
    return found


def _holders(field: Field) -> Iterator[Claim]:
    for name, listed in field.pairs():
        object, mark, relation = name.partition("#")
        place = listed.key or listed.place
        if not mark or not relation or "#" in relation:
            raise FileError(f"{name!r} names no permission", place, remedy="Write TYPE:ID#PERMISSION: and a list.")
        found = _parse(Object.parse, object, listed)
        expected = tuple(_expected(item) for item in listed.items())
        yield Holders(kind=Kind.EXPECTED, place=place, object=str(found), relation=relation, expected=expected)


def _expected(item: Field) -> Expected:
    text = item.text()
    found = _EXPECTED.fullmatch(text)
    who = found and _SUBJECT.fullmatch(found["subject"].strip())
    if not found or not who:
        raise item.error(
            f"{text!r} names no expected subject",
            'Write "[user:ada] is <model:kiln#reader>", "[user:ada[...]] is ..." or "[user:* - {user:bob}] is ...".',
        )
    excluded = []
    for name in (who["excluded"] or "").split(",") if who["excluded"] else []:
        perhaps = name.strip().endswith("[...]")
        excluded.append((_parse(Subject.parse, name.strip().removesuffix("[...]"), item), perhaps))
    sources = frozenset(source.strip("<>") for source in found["sources"].split(">/<"))
    for source in sources:
        object, _, relation = source.partition("#")
        if not relation or "#" in relation or "/" in relation:
            raise item.error(f"{source!r} names no relation", "Write <TYPE:ID#RELATION>/<TYPE:ID#RELATION>.")
        _parse(Object.parse, object, item)
    subject = _parse(Subject.parse, who["name"], item)
    return Expected(subject, who["conditional"] is not None, frozenset(excluded), sources, item.place)


def _parse(parse: Callable[[str], T], text: str, item: Field) -> T:
    """What a text says, or the error that it says nothing, with its place."""
    try:
        return parse(text)
    except AccessError as error:
        raise item.error(error.problem, error.remedy) from None
