"""OpenFGA's store files (`.fga.yaml`) and the staged tests of its engine.

Not here: whether what they claim holds (`run.py`), tuples in files of their own (`tuples.py`).
Source: the format of `fga model test` (a store with `tests` of `check`, `list_objects`, `list_users`), and that of
OpenFGA's own test matrix (`tests` of `stages`, each a new model over the tuples that are there).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cupola.access.decision import Verdict
from cupola.access.schema.model import Language
from cupola.access.validate.document import Field
from cupola.access.validate.report import Kind
from cupola.access.validate.schemas import named_schema, written_schema
from cupola.access.validate.suite import Check, Claim, ListObjects, ListUsers, SchemaText, Stage, Suite
from cupola.access.validate.tuples import facts_of, read_tuple, tuple_files

STORE = ("name", "model", "model_file", "tuples", "tuple_file", "tuple_files", "tests")
TEST = ("name", "description", "tuples", "tuple_file", "tuple_files", "check", "list_objects", "list_users")
STAGE = ("model", "name", "tuples", "checkAssertions", "listObjectsAssertions", "listUsersAssertions")
ASKED = ("contextualTuples", "context", "expectation", "errorCode", "name")


def is_staged(document: Field) -> bool:
    """Whether a document is of staged tests."""
    tests = dict(document.pairs()).get("tests")
    first = next(iter(tests.items()), None) if tests is not None and isinstance(tests.value, list) else None
    return first is not None and first.mapping and "stages" in dict(first.pairs())


def read_store(path: Path, document: Field) -> Suite:
    """Returns what a store file says.

    Raises:
        FileError: it cannot be read.
    """
    fields = document.fields(*STORE)
    if fields["model"] and fields["model_file"]:
        raise fields["model_file"].error("both model and model_file are given", "Leave one of them out.")
    schema: SchemaText | None = None
    if fields["model_file"]:
        schema = named_schema(path, fields["model_file"], Language.FGA)
    elif fields["model"]:
        schema = written_schema(fields["model"], Language.FGA)
    facts = facts_of(tuple_files(path, fields))
    claims = [claim for test in fields["tests"].items() for claim in _test(path, test)]
    return Suite("", (Stage(schema, facts, tuple(claims)),))


def _test(path: Path, field: Field) -> Iterator[Claim]:
    fields = field.fields(*TEST)
    more: dict[str, Any] = {
        "test": fields["name"].text() if fields["name"] else "",
        "extra": tuple_files(path, fields),
    }
    for check in fields["check"].items():
        yield from _checks(check, more)
    for asked in fields["list_objects"].items():
        parts = asked.fields("context", required=("user", "type", "assertions"))
        for relation, expected in parts["assertions"].pairs():
            yield ListObjects(
                kind=Kind.OBJECTS,
                place=expected.place,
                context=parts["context"].record(),
                type=parts["type"].text(),
                relation=relation,
                user=parts["user"].text(),
                expected=frozenset(one.text() for one in expected.items()),
                **more,
            )
    for asked in fields["list_users"].items():
        parts = asked.fields("context", required=("object", "user_filter", "assertions"))
        kinds = [one.fields("relation", required=("type",)) for one in parts["user_filter"].items()]
        for relation, assertion in parts["assertions"].pairs():
            users = assertion.fields("users")["users"]
            yield ListUsers(
                kind=Kind.USERS,
                place=assertion.place,
                context=parts["context"].record(),
                object=parts["object"].text(),
                relation=relation,
                kinds=tuple((one["type"].text(), one["relation"].text() if one["relation"] else "") for one in kinds),
                expected=frozenset(one.text() for one in users.items()),
                **more,
            )


def _checks(field: Field, more: dict[str, Any]) -> Iterator[Claim]:
    parts = field.fields("user", "users", "object", "objects", "context", required=("assertions",))
    for user in _one_or_many(field, parts, "user"):
        for object in _one_or_many(field, parts, "object"):
            for relation, expected in parts["assertions"].pairs():
                yield Check(
                    kind=Kind.CHECK,
                    place=expected.place,
                    context=parts["context"].record(),
                    object=object,
                    relation=relation,
                    user=user,
                    verdict=Verdict.YES if expected.truth() else Verdict.NO,
                    **more,
                )


def _one_or_many(field: Field, parts: dict[str, Field], name: str) -> list[str]:
    one, many = parts[name], parts[f"{name}s"]
    if bool(one) == bool(many):
        problem = f"both {name} and {name}s are given" if one else f"lacks {name} or {name}s"
        raise field.error(problem, f"Write one of {name}: and {name}s:.")
    return [one.text()] if one else [item.text() for item in many.items()]


def read_stages(document: Field) -> tuple[Suite, ...]:
    """Returns the tests of a file of staged tests, each with a store of its own.

    Raises:
        FileError: it cannot be read.
    """
    suites = []
    for test in document.fields(required=("tests",))["tests"].items():
        fields = test.fields("name", required=("stages",))
        name = fields["name"].text() if fields["name"] else ""
        suites.append(Suite(name, tuple(_stage(name, stage) for stage in fields["stages"].items())))
    return tuple(suites)


def _stage(name: str, field: Field) -> Stage:
    fields = field.fields(*STAGE[1:], required=STAGE[:1])
    schema = written_schema(fields["model"], Language.FGA)
    facts = facts_of(tuple(read_tuple(one) for one in fields["tuples"].items()))
    claims: list[Claim] = []
    for item in fields["checkAssertions"].items():
        asked, common = _asked(item, name, "tuple")
        key = read_tuple(asked["tuple"], lenient=True)
        verdict = Verdict.YES if asked["expectation"] and asked["expectation"].truth() else Verdict.NO
        claims.append(
            Check(kind=Kind.CHECK, object=key.object, relation=key.relation, user=key.user, verdict=verdict, **common)
        )
    for item in fields["listObjectsAssertions"].items():
        asked, common = _asked(item, name, "request")
        parts = asked["request"].fields("user", "type", "relation")
        type, relation, user = (parts[part].text() if parts[part] else "" for part in ("type", "relation", "user"))
        expected = frozenset(one.text() for one in asked["expectation"].items())
        claims.append(
            ListObjects(kind=Kind.OBJECTS, type=type, relation=relation, user=user, expected=expected, **common)
        )
    for item in fields["listUsersAssertions"].items():
        asked, common = _asked(item, name, "request")
        parts = asked["request"].fields("object", "relation", "filters")
        object, relation = (parts[part].text() if parts[part] else "" for part in ("object", "relation"))
        kinds = tuple((kind, name) for kind, _, name in (one.text().partition("#") for one in parts["filters"].items()))
        expected = frozenset(one.text() for one in asked["expectation"].items())
        claims.append(
            ListUsers(kind=Kind.USERS, object=object, relation=relation, kinds=kinds, expected=expected, **common)
        )
    return Stage(schema, facts, tuple(claims))


def _asked(item: Field, test: str, what: str) -> tuple[dict[str, Field], dict[str, Any]]:
    """The parts of an assertion, and what all kinds of claim take from them."""
    fields = item.fields(*ASKED, required=(what,))
    return fields, {
        "place": item.place,
        "test": test,
        "context": fields["context"].record(),
        "extra": tuple(read_tuple(one, lenient=True) for one in fields["contextualTuples"].items()),
        "code": fields["errorCode"].number() if fields["errorCode"] else None,
    }
